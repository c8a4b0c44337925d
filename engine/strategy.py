"""The `tf.distribute.Strategy` that a config names."""

from __future__ import annotations

import functools

import tensorflow as tf

from .config import DEFAULT_NUM_CPU_REPLICAS, ConfigError, TrainConfig


def make_strategy(config: TrainConfig) -> tf.distribute.Strategy:
    """Returns the strategy that `config.strategy` names.

    Call `configure_runtime(config)` first: on a machine without a GPU, `mirrored` runs on the
    logical CPU devices that it creates.

    Args:
      config: Read: `strategy`, `num_replicas`, `global_batch_size`.

    Returns:
      `default` or None: the current strategy, TensorFlow's for one device outside a scope.
      `one_device`: on the first GPU, or the CPU. `mirrored`: on all visible GPUs or the first
      `num_replicas`; on logical CPU devices without a GPU.

    Raises:
      ConfigError: If there are fewer devices than `num_replicas`.

    Example:
      >>> engine.make_strategy(engine.TrainConfig()).num_replicas_in_sync
      1
    """
    if config.strategy in ("default", None):
        return tf.distribute.get_strategy()
    gpus = tf.config.list_logical_devices("GPU")
    devices = [d.name for d in gpus or tf.config.list_logical_devices("CPU")]
    if config.strategy == "one_device":
        return tf.distribute.OneDeviceStrategy(devices[0])
    num_replicas = config.num_replicas or (len(gpus) or DEFAULT_NUM_CPU_REPLICAS)
    if num_replicas > len(devices):
        kind = "GPU" if gpus else "logical CPU"
        raise ConfigError(
            f"num_replicas={num_replicas} but there are {len(devices)} {kind} devices: ask for "
            f"{len(devices)} or fewer"
            + ("." if gpus else ", or call configure_runtime(config) before TensorFlow starts.")
        )
    if (config.global_batch_size or num_replicas) < num_replicas:
        raise ConfigError(
            f"global_batch_size={config.global_batch_size} is less than the {num_replicas} "
            "replicas: give each replica one example or more."
        )
    return _mirrored(tuple(devices[:num_replicas]))


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    # One object a set of devices: two would give their collectives the same keys, and TensorFlow
    # would mix them up ("Shape mismatch in the collective instance").
    return tf.distribute.MirroredStrategy(list(devices))


def check_strategy(
    config: TrainConfig, strategy: tf.distribute.Strategy, *, has_scope: bool
) -> None:
    """Raises ConfigError if the config names another strategy or number of replicas.

    Args:
      config: Read: `strategy`, `num_replicas`.
      strategy: Of the state.
      has_scope: Whether the state was created in the scope of a strategy.
    """
    kinds = {
        "one_device": tf.distribute.OneDeviceStrategy,
        "mirrored": tf.distribute.MirroredStrategy,
    }
    kind = kinds.get(config.strategy or "")
    is_default = config.strategy == "default"
    if (is_default and has_scope) or (kind is not None and not isinstance(strategy, kind)):
        found = type(strategy).__name__ if has_scope else "no strategy"
        raise ConfigError(
            f"strategy={config.strategy!r}, but the state was created under {found}: create model "
            "and state in make_strategy(config).scope(), or set strategy to what they use."
        )
    if config.num_replicas not in (None, strategy.num_replicas_in_sync):
        raise ConfigError(
            f"num_replicas={config.num_replicas}, but the state has "
            f"{strategy.num_replicas_in_sync}: create model and state in "
            "make_strategy(config).scope(), or leave num_replicas out."
        )


def describe_strategy(strategy: tf.distribute.Strategy) -> str:
    """Returns the replicas and their devices in one line."""
    num_replicas = strategy.num_replicas_in_sync
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    line = f"{num_replicas} x {kind}"
    if num_replicas > 1 and kind == "CPU":
        line += ", logical devices: there is no GPU here; for trying out, not for speed"
    return line
