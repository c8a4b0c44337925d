"""Batches that the graph makes, split over the replicas of one process.

`tf.distribute` hands each batch of a dataset to the replicas through a generator a device, with
threads of their own: on two logical CPUs, that takes longer than the step of a small net.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ..protocols import Batch, GraphBatches


class SplitBatches:
    """`GraphBatches`, of which each replica gets the part that `tf.distribute` would give it.

    Context: cross-replica.

    Args:
      batches: Of whole batches, tensors with the axis of the examples. They must live as long.
      strategy: Of the replicas, all of this process.
      element_spec: Of a dataset of the same batches that the strategy has distributed.

    Attributes:
      strategy: As above.
      element_spec: As above.
      stacks: None: what XLA compiles as a whole has one replica.
    """

    stacks = None

    def __init__(
        self, batches: GraphBatches, strategy: tf.distribute.Strategy, element_spec: Any
    ) -> None:
        self._batches = weakref.proxy(batches)
        self.strategy = strategy
        self.element_spec = element_spec

    @property
    def num_batches(self) -> int:
        """Of an epoch."""
        number: int = self._batches.num_batches
        return number

    def seek(self, epoch: int, step: int = 0) -> None:
        """Goes to a step of an epoch. Context: on the host."""
        self._batches.seek(epoch, step)

    def reader(self) -> Callable[[tf.Tensor], Batch]:
        """Returns a function of a step of the epoch to a batch for each replica."""
        get, devices = self._batches.reader(), self.strategy.extended.worker_devices

        def get_parts(step: tf.Tensor) -> Batch:
            batch = get(step)

            def part_of(context: Any) -> Batch:
                replica = context.replica_id_in_sync_group
                with tf.device(devices[replica]):
                    return tf.nest.map_structure(lambda t: _part(t, replica, len(devices)), batch)

            return self.strategy.experimental_distribute_values_from_function(part_of)

        return get_parts

    def current_step(self) -> tf.Tensor:
        """Returns the next step of the epoch, int64 scalar."""
        return self._batches.current_step()

    def get_stack(self, step: tf.Tensor, number: int) -> Any:
        """Must not be called: there are no stacks."""
        raise AssertionError("stacks is None")

    def advance(self, num_steps: tf.Tensor) -> None:
        """Moves the current step on."""
        self._batches.advance(num_steps)


# One for all trainings on the same batches: for another object, a graph is traced anew.
_MADE: weakref.WeakKeyDictionary[GraphBatches, SplitBatches] = weakref.WeakKeyDictionary()


def split(batches: GraphBatches, strategy: tf.distribute.Strategy, element_spec: Any) -> Any:
    """Returns `GraphBatches` of parts for the replicas, the same for one; see `SplitBatches`."""
    if strategy.num_replicas_in_sync == 1:
        return batches
    made = _MADE.get(batches)
    if made is None or made.strategy is not strategy:
        made = _MADE[batches] = SplitBatches(batches, strategy, element_spec)
    return made


def _part(tensor: tf.Tensor, replica: int, num_replicas: int) -> tf.Tensor:
    """Returns the part of one replica: the first ones are full, the last may have less, or none."""
    size = tensor.shape[0]
    if size is not None and size % num_replicas == 0:
        full = size // num_replicas
        return tensor[replica * full : (replica + 1) * full]
    full = -(-tf.shape(tensor)[0] // num_replicas)
    return tensor[replica * full : (replica + 1) * full]
