"""Process-global state of TensorFlow and Keras: set, checked and recorded here.

Devices, threads and determinism must be set before the first operation. Only `parity.compare` sets
any of it too: it starts both trainings with the same seed, dtype policy and Keras names.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2
from tensorflow.python.eager import context

# TensorFlow has a public setter, but no public getter.
from tensorflow.python.framework.config import is_op_determinism_enabled

from gradloop.machine import num_cores, processor_name

from . import devices
from .arguments import check_config
from .config import DEFAULT_NUM_CPU_REPLICAS, TrainConfig
from .gpus import configure_gpus, describe_gpus
from .options import ConfigError, show
from .workers.cluster import find_cluster

# To see the mechanism of replicas takes a few; TensorFlow takes minutes to make thousands.
MAX_LOGICAL_CPUS = 64
_SEED_MODULUS = 2**31 - 1  # of TensorFlow's truncated seeds
_policy_set_here: str | None = None  # what configure_runtime changed the dtype policy to
_BIT_CHANGING_VARIABLES = (
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_DETERMINISTIC_OPS",
    "TF_CUDNN_DETERMINISTIC",
    "NVIDIA_TF32_OVERRIDE",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_XLA_FLAGS",
    "XLA_FLAGS",
    "TF_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)


def configure_runtime(config: TrainConfig) -> None:
    """Sets seed, determinism, threads, memory growth, logical devices and dtype policy.

    Call it before the first TensorFlow operation: threads and devices cannot change later.

    Args:
      config: Read: `seed`, `deterministic`, `intra_op_threads`, `inter_op_threads`, `strategy`,
        `num_replicas`, `precision`, `tf32`. Fields that are None change nothing.

    Raises:
      ConfigError: If TensorFlow has started with other threads or devices, there are more replicas
        than logical CPU devices may be made for them, or the environment does not name the workers
        of `multi_worker`.

    Example:
      >>> engine.configure_runtime(engine.TrainConfig(seed=7, precision="float32"))
    """
    check_config(config)
    _check_num_cpus(config)
    if config.strategy == "multi_worker":
        find_cluster()  # which may set TF_CONFIG
    try:
        _configure_devices(config)
    except RuntimeError as error:
        raise ConfigError(
            f"TensorFlow has started: its devices and threads cannot change any more ({error}). "
            "Call configure_runtime(config) before the first TensorFlow operation."
        ) from error
    if config.seed is not None:
        keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    if config.tf32 is not None:
        tf.config.experimental.enable_tensor_float_32_execution(config.tf32)
    _set_policy(config.precision)


def _set_policy(precision: str | None) -> None:
    global _policy_set_here  # noqa: PLW0603 - the policy is global, too
    policy = keras.config.dtype_policy().name
    if precision is not None:
        if precision != policy:
            _policy_set_here = precision
        keras.config.set_dtype_policy(precision)
    elif policy == _policy_set_here != "float32":
        warnings.warn(
            f"precision is not set, and the dtype policy is still {policy!r}, of an earlier "
            "configure_runtime: new models have it. Set precision, to 'float32' or to this.",
            stacklevel=3,
        )


def check_runtime(config: TrainConfig) -> None:
    """Raises ConfigError if a process-global field of the config is set, but not in effect.

    Args:
      config: Read: `seed`, `deterministic`, `tf32`, `intra_op_threads`, `inter_op_threads`. What
        a state keeps of the rest (strategy, dtype policy) is checked in `agreement`.
    """
    threading = tf.config.threading
    asked_and_found: dict[str, tuple[Any, Any]] = {
        "deterministic": (config.deterministic or None, is_op_determinism_enabled()),
        "tf32": (config.tf32, tf.config.experimental.tensor_float_32_execution_enabled()),
        "intra_op_threads": (config.intra_op_threads, threading.get_intra_op_parallelism_threads()),
        "inter_op_threads": (config.inter_op_threads, threading.get_inter_op_parallelism_threads()),
        "seed": (None if config.seed is None else config.seed % _SEED_MODULUS, _global_seed()),
    }
    for name, (asked, found) in asked_and_found.items():
        if asked not in (None, found):
            raise ConfigError(
                f"{name}={show(getattr(config, name))} is not in effect: call "
                "configure_runtime(config) before the model is built and before the first "
                "TensorFlow operation, or leave it out."
            )


def _global_seed() -> int:
    # Given a seed for the operation, get_seed draws none, which would change the next one.
    return int(tf.compat.v1.get_seed(1)[0])


@contextlib.contextmanager
def dtype_policy(precision: str | None) -> Iterator[None]:
    """Sets Keras's dtype policy in this context; None leaves it as it is."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision or before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def keeping_sums() -> Iterator[None]:
    """Calls compiled functions so that TensorFlow splits no sum to save memory of a CPU.

    Its graph optimizer takes a CPU to have 256 MB. Where it estimates that a step needs more, it
    turns a sum of three tensors or more into additions to a temporary variable, in any order:
    other last bits in each run, in Keras too. Which sums, depends on all else in the step.

    Context: cross-replica, on the host. Of a function, the first call counts.
    """
    eager = context.context()
    before = eager.function_call_options
    if not devices.has_gpu():
        eager.function_call_options = _without_split_sums(
            before.executor_type, before.config_proto_serialized
        )
    try:
        yield
    finally:
        eager.function_call_options = before


@functools.cache
def _without_split_sums(executor_type: str | None, config: bytes) -> Any:
    changed = config_pb2.ConfigProto.FromString(config)
    off = rewriter_config_pb2.RewriterConfig.NO_MEM_OPT
    changed.graph_options.rewrite_options.memory_optimization = off
    return context.FunctionCallOptions(executor_type, changed)


def has_fast_bfloat16() -> bool:
    """Returns whether the processor has instructions for bfloat16; False if unknown."""
    try:
        words = Path("/proc/cpuinfo").read_text("utf-8").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(words)


def describe_environment() -> dict[str, Any]:
    """Returns what bits and speed depend on: versions, machine, devices, threads, flags, code.

    Call it after `configure_runtime`: it makes TensorFlow initialize its devices.
    """
    commit, is_dirty = _git_state(Path(__file__).resolve().parent)
    return describe_runtime() | {
        "physical_devices": [_describe_device(d) for d in devices.physical()],
        "gpus": describe_gpus(),
        "git_commit": commit,
        "git_has_changes": is_dirty,
    }


def describe_runtime() -> dict[str, Any]:
    """Returns the part of the environment on which bits depend, but for the code of the engine."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": processor_name(),
        "num_cores": num_cores(),
        "logical_devices": [device.name for device in devices.logical()],
        # 0: TensorFlow chooses, one per core.
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
        "op_determinism": is_op_determinism_enabled(),
        "tf32": tf.config.experimental.tensor_float_32_execution_enabled(),
        "dtype_policy": keras.config.dtype_policy().name,
        "variables": {name: os.environ.get(name) for name in _BIT_CHANGING_VARIABLES},
    }


def _describe_device(device: Any) -> dict[str, Any]:
    details = tf.config.experimental.get_device_details(device)
    return {"name": device.name, "model": details.get("device_name")}


def _git_state(directory: Path) -> tuple[str | None, bool | None]:
    """Returns the commit of the checkout that the engine runs from, and whether files differ."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(directory), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        # An installed engine may lie in the checkout of another project.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):  # no git, or no checkout
        return None, None


def _configure_devices(config: TrainConfig) -> None:
    # Only what differs is set: a second call with the same config is legal.
    threading = tf.config.threading
    if config.intra_op_threads not in (None, threading.get_intra_op_parallelism_threads()):
        threading.set_intra_op_parallelism_threads(config.intra_op_threads)
    if config.inter_op_threads not in (None, threading.get_inter_op_parallelism_threads()):
        threading.set_inter_op_parallelism_threads(config.inter_op_threads)
    configure_gpus(config)
    if config.strategy == "mirrored" and not devices.physical("GPU"):
        _make_logical_cpus(config.num_replicas or DEFAULT_NUM_CPU_REPLICAS)


def _check_num_cpus(config: TrainConfig) -> None:
    """Raises ConfigError for more replicas than a machine without a GPU can be split into."""
    most = max(MAX_LOGICAL_CPUS, num_cores())
    asked = config.num_replicas or 1
    if config.strategy == "mirrored" and asked > most and not devices.physical("GPU"):
        raise ConfigError(
            f"num_replicas={asked} on {num_cores()} cores without a GPU: ask for {most} or fewer "
            "logical CPU devices."
        )


def _make_logical_cpus(num_devices: int) -> None:
    cpu = devices.physical("CPU")[0]
    made = tf.config.get_logical_device_configuration(cpu)
    if made is None or len(made) < num_devices:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(num_devices)]
        )
