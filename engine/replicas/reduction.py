"""How replicas exchange gradients: by which algorithm, and how many at once."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from .. import devices
from ..config import TrainConfig
from ..options import ConfigError, show

_CommunicationOptions = tf.distribute.experimental.CommunicationOptions
_IMPLEMENTATIONS = tf.distribute.experimental.CommunicationImplementation
_BYTES_PER_MIB = 2**20


class Reduction(NamedTuple):
    """See the fields `all_reduce` and `all_reduce_pack_mib` of `TrainConfig`."""

    all_reduce: str = "auto"
    pack_mib: int | None = None

    @property
    def options(self) -> tf.distribute.experimental.CommunicationOptions:
        """The options of collectives."""
        kinds = {"nccl": _IMPLEMENTATIONS.NCCL, "ring": _IMPLEMENTATIONS.RING}
        return _CommunicationOptions(
            bytes_per_pack=(self.pack_mib or 0) * _BYTES_PER_MIB,
            implementation=kinds.get(self.all_reduce, _IMPLEMENTATIONS.AUTO),
        )

    def cross_device_ops(self, devices: Sequence[str]) -> tf.distribute.CrossDeviceOps | None:
        """Returns what exchanges between devices of one process; None: collectives do."""
        if self.all_reduce == "hierarchical":
            return tf.distribute.HierarchicalCopyAllReduce()
        # Logical CPUs share their memory: a sum on the first needs none of a ring's copies. Of two
        # numbers it has the ring's bits; of more, it would have another order.
        are_two_cpus = len(devices) == 2 and not any("GPU" in device for device in devices)
        is_auto = self == Reduction()
        if self.all_reduce == "one_device" or (is_auto and are_two_cpus):
            return tf.distribute.ReductionToOneDevice()
        return None


# Of the strategies that were made here.
_MADE: weakref.WeakKeyDictionary[tf.distribute.Strategy, Reduction] = weakref.WeakKeyDictionary()


def find_reduction(config: TrainConfig) -> Reduction:
    """Returns what a config asks for.

    Raises:
      ConfigError: If it asks for NCCL, and there is no GPU.
    """
    if config.all_reduce == "nccl" and not devices.physical("GPU"):
        raise ConfigError(
            "all_reduce='nccl', but there is no GPU, which NCCL is for: use all_reduce='auto'."
        )
    return Reduction(config.all_reduce, config.all_reduce_pack_mib)


def set_reduction(strategy: tf.distribute.Strategy, reduction: Reduction) -> None:
    """Makes a new strategy exchange as asked, and notes it."""
    if isinstance(strategy, tf.distribute.MirroredStrategy):
        # Its constructor takes no options, as that of the strategy for several workers does.
        extended = strategy.extended
        extended._communication_options = extended._communication_options.merge(reduction.options)
    _MADE[strategy] = reduction


def check_reduction(config: TrainConfig, strategy: tf.distribute.Strategy) -> None:
    """Raises ConfigError if a state's strategy exchanges otherwise than a config says."""
    found = _MADE.get(strategy, Reduction())
    asked = Reduction(config.all_reduce, config.all_reduce_pack_mib)
    names = "all_reduce", "all_reduce_pack_mib"
    for name, one, other, default in zip(names, asked, found, Reduction(), strict=True):
        if one not in (default, other):
            raise ConfigError(
                f"{name}={show(one)}, but the strategy of the state was made with {show(other)}: "
                "create model and state in make_strategy(config).scope(), or leave it out."
            )
