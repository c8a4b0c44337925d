"""ResidentBatches: the batches of an `EpochDataset` for a loop that makes them in its own graph.

`EpochDataset.resident` is one. It offers what the engine's `protocols.GraphBatches` asks for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from .stored_arrays import StoredArrays


class Epoch(NamedTuple):
    """What stays the same for all batches of an epoch.

    Attributes:
      number: Its index, int64 scalar.
      order: Indices of its examples, int64 of shape `[num_examples]`.
      arrays: The examples: `x`, `(x, y)` or `(x, y, sample_weight)`.
    """

    number: tf.Tensor
    order: tf.Tensor
    arrays: Any


class OrderedArrays(NamedTuple):
    """What the engine's `protocols.OrderedArrays` has."""

    tensors: Any
    batch_size: int
    element_spec: Any
    finish: Callable[[Any], Any]
    key: str


@dataclasses.dataclass
class Stacks:
    """Many full batches at once, for a loop that XLA compiles. Context of both functions: graph.

    Attributes:
      take: Maps `(epoch, step, number)`, an `Epoch` and two numbers, to the raw examples of
        `number` batches, each of shape `[number, batch, ...]`.
      finish: Maps one raw batch of such a stack to a batch.
      num_full_batches: Full batches in an epoch: all, or all but the last.
      batch_bytes: Size of one raw batch.
    """

    take: Callable[[Epoch, tf.Tensor, int], Any]
    finish: Callable[[Any], Any]
    num_full_batches: int
    batch_bytes: int


def with_shape_of(value: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """Returns a tensor that must have a spec's shape: by an operation where the graph knows less.

    Raises:
      InvalidArgumentError: When it runs, if the shape is another.
    """
    is_known = value.shape.is_fully_defined() and value.shape == spec.shape
    return value if is_known else tf.ensure_shape(value, spec.shape)


class ResidentBatches:
    """The batches of an `EpochDataset`, made by the graph that trains on them.

    This avoids the threads of tf.data, whose hand-overs cost more time than a batch of a small
    model. It runs the same operations on the same arrays, so the bits are the same.
    Context: the CPU of one process; under a strategy, cross-replica.

    Args:
      make_batch: Maps `(step, epoch)`, an int64 scalar and an `Epoch`, to a batch. Context: graph.
      epoch_order: Maps the index of an epoch to its order.
      arrays: What an epoch takes when it begins.
      num_batches: Batches in an epoch.
      element_spec: Structure of `tf.TensorSpec` of a batch.
      stacks: Makes many full batches at once; None if that is impossible.
    """

    def __init__(
        self,
        make_batch: Callable[..., Any],
        epoch_order: Callable[[tf.Tensor], tf.Tensor],
        arrays: StoredArrays,
        num_batches: int,
        element_spec: Any,
        stacks: Stacks | None = None,
    ) -> None:
        self._make_batch = make_batch
        self._epoch_order = epoch_order
        self._arrays = arrays
        self._arrays_of_epoch: StoredArrays | None = None
        self.num_batches = num_batches
        self.stacks = stacks
        self._variables: tuple[Any, ...] | None = None
        self.element_spec = element_spec

    def seek(self, epoch: int, step: int = 0) -> None:
        """Goes to a step of an epoch. Context: on the host."""
        number = tf.constant(epoch, tf.int64)
        values = (number, tf.constant(step, tf.int64), self._epoch_order(number))
        if self._variables is None:
            self._variables = tuple(tf.Variable(v, trainable=False) for v in values)
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)
        if self._arrays_of_epoch is None:
            self._arrays_of_epoch = self._arrays.share()
        else:
            self._arrays_of_epoch.write_from(self._arrays)

    def follow(self) -> None:
        """Lets go of arrays that were replaced, unless an epoch goes on with them."""
        if self._arrays_of_epoch is not None and self.current_step() >= self.num_batches:
            self._arrays_of_epoch.write_from(self._arrays)

    def reader(self) -> Callable[[tf.Tensor], Any]:
        """Returns a function of a step of the epoch, int64 scalar, to its batch.

        Beyond the end it begins anew. Context: graph. Call this before a loop, so that order and
        arrays are read once and not in each step.
        """
        epoch = self._epoch()

        def get(step: tf.Tensor) -> Any:
            batch = self._make_batch(step, epoch)
            return tf.nest.map_structure(with_shape_of, batch, self.element_spec)

        return get

    def current_step(self) -> tf.Tensor:
        """Returns the next step of the epoch, int64 scalar. Context: graph, or on the host."""
        assert self._variables is not None, "seek() comes first"
        return self._variables[1].read_value()

    def get_stack(self, step: tf.Tensor, number: int) -> Any:
        """Returns the raw batches `step` to `step + number - 1`, stacked. Context: graph.

        Args:
          step: int64 scalar; all of these batches must be full.
          number: Size of the new leading dimension.
        """
        assert self.stacks is not None, "these batches cannot be stacked"
        return self.stacks.take(self._epoch(), step, number)

    def advance(self, num_steps: tf.Tensor) -> None:
        """Moves the current step on. Context: graph."""
        assert self._variables is not None, "seek() comes first"
        self._variables[1].assign_add(tf.cast(num_steps, tf.int64))

    def _epoch(self) -> Epoch:
        assert self._variables is not None, "seek() comes first"
        assert self._arrays_of_epoch is not None
        number, _, order = self._variables
        return Epoch(number.read_value(), order.read_value(), self._arrays_of_epoch.read())
