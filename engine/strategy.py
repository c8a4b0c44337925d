"""Name -> `tf.distribute.Strategy`."""

from __future__ import annotations

import functools

import tensorflow as tf

from engine.config import DEFAULT_NUM_CPU_REPLICAS, ConfigError, TrainConfig


def make_strategy(config: TrainConfig) -> tf.distribute.Strategy:
    """Returns the strategy that `config.strategy` names.

    `configure_runtime(config)` must have run: on a machine with no GPU, `mirrored` runs on the
    logical CPU devices that it made.

    Args:
      config: `strategy` and `num_replicas` are read.

    Returns:
      `default`: TensorFlow's strategy for one device. `one_device`: the first GPU, or the CPU.
      `mirrored`: all visible GPUs or the first `num_replicas`; logical CPU devices without a GPU.

    Raises:
      ConfigError: If there are fewer devices than replicas asked for.
    """
    if config.strategy == "default":
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
    if config.global_batch_size < num_replicas:
        raise ConfigError(
            f"global_batch_size={config.global_batch_size} is less than the {num_replicas} "
            "replicas: give each replica one example or more."
        )
    return _mirrored(tuple(devices[:num_replicas]))


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    # One object a set of devices: two would number their collectives alike, and TensorFlow would
    # take those of the second for the first's ("Shape mismatch in the collective instance").
    return tf.distribute.MirroredStrategy(list(devices))


def describe_strategy(strategy: tf.distribute.Strategy) -> str:
    """Returns one line for people: devices and replicas."""
    num_replicas = strategy.num_replicas_in_sync
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    line = f"{num_replicas} x {kind}"
    if num_replicas > 1 and kind == "CPU":
        line += ", logical devices: there is no GPU here; good for trying out, not for speed"
    return line
