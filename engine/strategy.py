"""The `tf.distribute.Strategy` that a config names."""

from __future__ import annotations

import functools

import tensorflow as tf

from . import devices
from .arguments import check_config
from .config import DEFAULT_NUM_CPU_REPLICAS, TrainConfig
from .options import ConfigError


def make_strategy(config: TrainConfig) -> tf.distribute.Strategy:
    """Returns the strategy that `config.strategy` names.

    Call `configure_runtime(config)` first: it creates the logical CPU devices on which `mirrored`
    runs on a machine without a GPU.

    Args:
      config: Read: `strategy`, `num_replicas`, `global_batch_size`.

    Returns:
      `default` or None: the current strategy; outside a scope, TensorFlow's for one device.
      `one_device`: one on the first GPU, or on the CPU. `mirrored`: one on the first `num_replicas`
      GPUs (None: on all), or on logical CPU devices if there is no GPU.

    Raises:
      ConfigError: If there are fewer devices than replicas, or fewer examples in a batch.

    Example:
      >>> engine.make_strategy(engine.TrainConfig()).num_replicas_in_sync
      1
    """
    check_config(config)
    if config.strategy in ("default", None):
        return tf.distribute.get_strategy()
    gpus = devices.logical("GPU")
    names = [d.name for d in gpus or devices.logical("CPU")]
    if config.strategy == "one_device":
        return tf.distribute.OneDeviceStrategy(names[0])
    num_replicas = config.num_replicas or (len(gpus) or DEFAULT_NUM_CPU_REPLICAS)
    if num_replicas > len(names):
        kind = "GPU" if gpus else "logical CPU"
        raise ConfigError(
            f"num_replicas={num_replicas} but there are {len(names)} {kind} devices: ask for "
            f"{len(names)} or fewer"
            + ("." if gpus else ", or call configure_runtime(config) before TensorFlow starts.")
        )
    if (config.global_batch_size or num_replicas) < num_replicas:
        raise ConfigError(
            f"global_batch_size={config.global_batch_size} is less than the {num_replicas} "
            "replicas: give each replica one example or more."
        )
    return _mirrored(tuple(names[:num_replicas]))


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    # One object per set of devices: the collectives of two would have the same keys, and TensorFlow
    # would mix them up ("Shape mismatch in the collective instance").
    return tf.distribute.MirroredStrategy(list(devices))


def check_strategy(
    config: TrainConfig, strategy: tf.distribute.Strategy, *, has_scope: bool
) -> None:
    """Raises ConfigError if a state has another strategy or number of replicas than the config.

    Args:
      config: Read: `strategy`, `num_replicas`.
      strategy: The state's.
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
            f"num_replicas={config.num_replicas}, but the strategy of the state has "
            f"{strategy.num_replicas_in_sync}: create model and state in "
            "make_strategy(config).scope(), or leave num_replicas out."
        )


def describe_strategy(strategy: tf.distribute.Strategy) -> str:
    """Returns the replicas and their devices in one line."""
    num_replicas = strategy.num_replicas_in_sync
    kind = "GPU" if devices.has_gpu() else "CPU"
    line = f"{num_replicas} x {kind}"
    if num_replicas > 1 and kind == "CPU":
        line += ", logical devices: there is no GPU here; to try things out, not for speed"
    return line
