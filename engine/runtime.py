"""The only place that changes process-global TensorFlow state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import keras
import tensorflow as tf

from engine.config import DEFAULT_NUM_CPU_REPLICAS, ConfigError, TrainConfig


def configure_runtime(config: TrainConfig) -> None:
    """Sets seed, determinism, threads, memory growth, logical devices and dtype policy.

    Call it once, before the first TensorFlow operation: threads and devices cannot be changed
    after.

    Args:
      config: `seed`, `deterministic`, `intra_op_threads`, `inter_op_threads`, `strategy`,
        `num_replicas` and `precision` are read.

    Raises:
      ConfigError: If TensorFlow runs already and the threads or devices asked for cannot be set.
    """
    try:
        _configure_devices(config)
    except RuntimeError as error:
        raise ConfigError(
            f"TensorFlow has started, so that its devices and threads cannot be changed ({error}). "
            "Call configure_runtime(config) before the first TensorFlow operation."
        ) from error
    if config.seed is not None:
        keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(config.precision)


@contextlib.contextmanager
def dtype_policy(precision: str) -> Iterator[None]:
    """Sets Keras's dtype policy, for the models that are made within."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def has_fast_bfloat16() -> bool:
    """Returns whether the processor has instructions for bfloat16; False where it does not tell."""
    try:
        words = Path("/proc/cpuinfo").read_text("utf-8").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(words)


def _configure_devices(config: TrainConfig) -> None:
    # Set only where it differs, so that a second call with the same config is no error.
    threading = tf.config.threading
    if config.intra_op_threads not in (None, threading.get_intra_op_parallelism_threads()):
        threading.set_intra_op_parallelism_threads(config.intra_op_threads)
    if config.inter_op_threads not in (None, threading.get_inter_op_parallelism_threads()):
        threading.set_inter_op_parallelism_threads(config.inter_op_threads)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        if not tf.config.experimental.get_memory_growth(gpu):
            tf.config.experimental.set_memory_growth(gpu, True)
    if config.strategy == "mirrored" and not gpus:
        _make_logical_cpus(config.num_replicas or DEFAULT_NUM_CPU_REPLICAS)


def _make_logical_cpus(num_devices: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    made = tf.config.get_logical_device_configuration(cpu)
    if made is None or len(made) < num_devices:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(num_devices)]
        )
