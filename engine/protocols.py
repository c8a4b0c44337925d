"""What a dataset may offer beyond `tf.data`: a position to start from, and batches in the graph.

`fit` takes every `tf.data.Dataset`. These protocols are what it uses where a dataset has more; the
datasets of `gradloop.data.pipeline` have all of it. Nobody needs to inherit from them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import tensorflow as tf

Batch = Any
Logs = dict[str, Any]


@runtime_checkable
class Seekable(Protocol):
    """A dataset that can start at any step of any epoch."""

    def seek(self, epoch: int, step: int = 0) -> None:
        """Makes the next iterator start there. Context: on the host.

        Args:
          epoch: Index of the epoch, from 0.
          step: Batches of that epoch to leave out.
        """


@runtime_checkable
class Stateful(Protocol):
    """A dataset that knows where it is: a checkpoint saves its state.

    What it hands out ahead of the training counts as taken: it must not end with `prefetch`. Under
    several replicas, which fetch ahead, it must be able to `seek` instead.
    """

    def state(self) -> dict[str, Any]:
        """Returns a tree as `Hook.state` does. Context: on the host, between executions."""

    def restore(self, state: dict[str, Any]) -> None:
        """Makes the next iterator start there. Context: on the host."""


@runtime_checkable
class Sliceable(Protocol):
    """A dataset of which each of several workers can make its part alone.

    Attributes:
      slices: Function of `tf.distribute.InputContext` to a dataset, of the parts of each batch for
        the replicas of that worker, in their order; None: the whole batches are made and split.
    """

    slices: Callable[[Any], Any] | None


@runtime_checkable
class HasBatchSize(Protocol):
    """A dataset that knows its batch size although the last batch may be smaller.

    Attributes:
      global_batch_size: Examples of every batch but the last.
    """

    global_batch_size: int


class BatchStacks(Protocol):
    """Many full batches at once, for a loop that XLA compiles.

    Attributes:
      num_full_batches: Of an epoch: all, or all but the last.
      batch_bytes: Size of one raw batch.
    """

    num_full_batches: int
    batch_bytes: int

    def finish(self, raw: Any) -> Batch:
        """Turns one raw batch of a stack into a batch. Context: graph, inside XLA."""


@runtime_checkable
class GraphBatches(Protocol):
    """The batches of an epoch, made by the graph that trains on them.

    Attributes:
      element_spec: Structure of `tf.TensorSpec`, as a dataset has.
      num_batches: Of an epoch.
      stacks: How many batches are made at once; None if they cannot be.
    """

    element_spec: Any
    num_batches: int
    stacks: BatchStacks | None

    def seek(self, epoch: int, step: int = 0) -> None:
        """Goes to a step of an epoch. Context: on the host."""

    def reader(self) -> Callable[[tf.Tensor], Batch]:
        """Returns a function of a step of the epoch, int64 scalar, to its batch.

        Beyond the end it returns a batch, too: of a loop, that is one that nobody trains on.
        Context: graph. Call it before a loop, so that what stays the same is read once.
        """

    def current_step(self) -> tf.Tensor:
        """Returns the next step of the epoch, int64 scalar. Context: graph."""

    def get_stack(self, step: tf.Tensor, number: int) -> Any:
        """Returns the raw batches `step` to `step + number - 1`, stacked. Context: graph.

        Args:
          step: int64 scalar; all of these batches are full.
          number: Size of the new leading dimension.
        """

    def advance(self, num_steps: tf.Tensor) -> None:
        """Moves the current step on. Context: graph."""


@runtime_checkable
class Resident(Protocol):
    """A dataset whose batches the graph can make.

    Attributes:
      resident: Makes the same batches, bit for bit.
    """

    resident: GraphBatches


class OrderedArrays(NamedTuple):
    """Arrays in memory, whose rows in their own order are the examples of the batches.

    Attributes:
      tensors: A structure of dense tensors with the same number of rows.
      batch_size: Rows of each batch; the last one may have fewer.
      element_spec: Of a batch.
      finish: Maps rows of all tensors to a batch. Context: graph.
      key: Tells functions apart: those with the same key do the same to the same dtypes and shapes.
    """

    tensors: Any
    batch_size: int
    element_spec: Any
    finish: Callable[[Any], Batch]
    key: Hashable


@runtime_checkable
class Ordered(Protocol):
    """A dataset whose batches may be slices of arrays in memory."""

    def ordered_arrays(self) -> OrderedArrays | None:
        """Returns the arrays as they are now; None if its batches are others.

        Context: on the host. What it returns has the attributes of `OrderedArrays`.
        """
