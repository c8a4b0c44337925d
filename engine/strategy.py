"""The `tf.distribute.Strategy` that a config names."""

from __future__ import annotations

import functools

import tensorflow as tf

from . import devices
from .arguments import check_config
from .config import DEFAULT_NUM_CPU_REPLICAS, TrainConfig
from .options import ConfigError
from .replicas.reduction import Reduction, check_reduction, find_reduction, set_reduction
from .workers.cluster import VARIABLE, Cluster, cluster_of, find_cluster

_NUM_KEYS = 1_000_000  # more than a strategy has groups of devices


def make_strategy(config: TrainConfig) -> tf.distribute.Strategy:
    """Returns the strategy that `config.strategy` names.

    Call `configure_runtime(config)` first: it creates the logical CPU devices on which `mirrored`
    runs on a machine without a GPU.

    Args:
      config: Read: `strategy`, `num_replicas`, `global_batch_size`, `all_reduce`,
        `all_reduce_pack_mib`.

    Returns:
      `default` or None: the current strategy; outside a scope, TensorFlow's for one device.
      `one_device`: one on the first GPU, or on the CPU. `mirrored`: one on the first `num_replicas`
      GPUs (None: on all), or on logical CPU devices if there is no GPU. `multi_worker`: one on all
      GPUs of each worker, or on its CPU; `TF_CONFIG` or SLURM names the workers. It must be made
      before the first TensorFlow operation, and waits for all workers.

    Raises:
      ConfigError: If there are fewer devices than replicas, or fewer examples in a batch; if
        `all_reduce` is "nccl" without a GPU; if the
        environment does not name the workers, or TensorFlow has started before.

    Example:
      >>> engine.make_strategy(engine.TrainConfig()).num_replicas_in_sync
      1
    """
    check_config(config)
    if config.strategy in ("default", None):
        return tf.distribute.get_strategy()
    if config.strategy == "multi_worker":
        return _checked_size(config, _multi_worker(find_cluster(), find_reduction(config)))
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
        raise ConfigError(_too_small(config, num_replicas))
    return _mirrored(tuple(names[:num_replicas]), find_reduction(config))


@functools.cache
def _mirrored(names: tuple[str, ...], reduction: Reduction) -> tf.distribute.MirroredStrategy:
    # TensorFlow numbers the collectives of each strategy from the same key on, and mixes up those
    # of two in one process ("Shape mismatch in the collective instance"). This one, and those that
    # others make, begin elsewhere.
    kind = tf.distribute.MirroredStrategy
    kind._collective_key_base += _NUM_KEYS
    strategy = kind(list(names), cross_device_ops=reduction.cross_device_ops(names))
    kind._collective_key_base += _NUM_KEYS
    set_reduction(strategy, reduction)
    return strategy


@functools.cache
def _multi_worker(
    cluster: Cluster, reduction: Reduction
) -> tf.distribute.MultiWorkerMirroredStrategy:
    # One a process: the second would start the collectives again, while the first has used them.
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(
            communication_options=reduction.options
        )
    except RuntimeError as error:
        if "must be configured at program startup" not in str(error):
            raise
        raise ConfigError(
            "TensorFlow has started: strategy='multi_worker' must be made before the first "
            "TensorFlow operation. Call make_strategy(config) right after configure_runtime."
        ) from error
    set_reduction(strategy, reduction)
    return strategy


def _checked_size(config: TrainConfig, strategy: tf.distribute.Strategy) -> tf.distribute.Strategy:
    num_replicas = strategy.num_replicas_in_sync
    if config.num_replicas not in (None, num_replicas):
        raise ConfigError(
            f"num_replicas={config.num_replicas}, but the workers of {VARIABLE} have "
            f"{num_replicas} together, one a GPU, or one a worker without GPUs: leave it out."
        )
    if (config.global_batch_size or num_replicas) < num_replicas:
        raise ConfigError(_too_small(config, num_replicas))
    return strategy


def _too_small(config: TrainConfig, num_replicas: int) -> str:
    return (
        f"global_batch_size={config.global_batch_size} is less than the {num_replicas} "
        "replicas: give each replica one example or more."
    )


def check_strategy(
    config: TrainConfig, strategy: tf.distribute.Strategy, *, has_scope: bool
) -> None:
    """Raises ConfigError if a state has another strategy or number of replicas than the config.

    Args:
      config: Read: `strategy`, `num_replicas`, `all_reduce`, `all_reduce_pack_mib`.
      strategy: The state's.
      has_scope: Whether the state was created in the scope of a strategy.
    """
    kinds = {
        "one_device": tf.distribute.OneDeviceStrategy,
        "mirrored": tf.distribute.MirroredStrategy,
        "multi_worker": tf.distribute.MultiWorkerMirroredStrategy,
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
    check_reduction(config, strategy)


def is_one_cpu(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether batches need neither be split nor moved.

    Under a strategy of one replica, a distributed dataset would only cost: on two cores, up to
    twice the time of a step of a tiny net.
    """
    is_cluster = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return strategy.num_replicas_in_sync == 1 and not is_cluster and not devices.has_gpu()


def is_on_cpu(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether all replicas are on the CPU of this process, whose graph may make batches."""
    is_mirrored = isinstance(strategy, tf.distribute.MirroredStrategy)
    return is_one_cpu(strategy) or (is_mirrored and not devices.has_gpu())


def may_train_resident(strategy: tf.distribute.Strategy, config: TrainConfig) -> bool:
    """Returns whether the graph of a training can make its batches itself, if `input` lets it."""
    return is_on_cpu(strategy) and not config.run_eagerly


def may_be_resident(strategy: tf.distribute.Strategy, config: TrainConfig) -> bool:
    """Returns whether a graph may make its batches itself: on one CPU, if the config lets it."""
    return is_one_cpu(strategy) and not config.run_eagerly and config.input != "streamed"


def describe_strategy(strategy: tf.distribute.Strategy) -> str:
    """Returns the replicas and their devices in one line."""
    num_replicas = strategy.num_replicas_in_sync
    kind = "GPU" if devices.has_gpu() else "CPU"
    line = f"{num_replicas} x {kind}"
    num_workers = cluster_of(strategy).num_workers
    if num_workers > 1:
        line += f", on {num_workers} workers"
    elif num_replicas > 1 and kind == "CPU":
        line += ", logical devices"
    return line
