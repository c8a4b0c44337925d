"""Steps that take several batches: `train_step(state, iterator)` calls `next` as often as it wants.

How often is known once it is traced: each step is then given so many batches at once, in order.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from .array_batches import ArrayBatches
from .protocols import Batch, BatchStacks, GraphBatches


def takes_iterator(step: Callable[..., Any]) -> bool:
    """Returns whether the second parameter of a step is called `iterator`."""
    try:
        return list(inspect.signature(step).parameters)[1:2] == ["iterator"]
    except (TypeError, ValueError):  # of a builtin
        return False


class Pulls:
    """In place of the batches of a step, while it is traced to count how many it takes.

    Args:
      element_spec: Of one replica's part of a batch.

    Attributes:
      count: How many batches were taken.
    """

    def __init__(self, element_spec: Any) -> None:
        self._spec = element_spec
        self._counts: dict[int, int] = {}

    @property
    def count(self) -> int:
        """How many batches a replica has taken."""
        return max(self._counts.values(), default=0)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            thread = threading.get_ident()  # of the replica
            self._counts[thread] = self._counts.get(thread, 0) + 1
            yield self._placeholders()

    def _placeholders(self) -> Batch:
        specs = tf.nest.flatten(self._spec, expand_composites=True)
        tensors = [tf.compat.v1.placeholder(spec.dtype, spec.shape) for spec in specs]
        return tf.nest.pack_sequence_as(self._spec, tensors, expand_composites=True)


class Group(NamedTuple):
    """Optionals of several batches. As a named tuple, a loop can carry it."""

    optionals: tuple[Any, ...]

    def has_value(self) -> tf.Tensor:
        """Returns whether all batches are there."""
        return tf.reduce_all([optional.has_value() for optional in self.optionals])

    def get_value(self) -> tuple[Batch, ...]:
        """Returns the batches."""
        return tuple(optional.get_value() for optional in self.optionals)


class GroupedIterator:
    """An iterator of `size` batches at a time. What is left at the end is dropped."""

    def __init__(self, iterator: Any, size: int) -> None:
        self._iterator = iterator
        self._size = size
        self.element_spec = (iterator.element_spec,) * size

    def get_next_as_optional(self) -> Group:
        """Returns the next batches, which are there if all of them are."""
        return Group(tuple(self._iterator.get_next_as_optional() for _ in range(self._size)))


class GroupedBatches:
    """`GraphBatches`, of which each is `size` batches."""

    stacks: BatchStacks | None = None

    def __init__(self, batches: Any, size: int) -> None:
        self._batches = batches
        self._size = size
        self.element_spec = (batches.element_spec,) * size

    def reader(self) -> Callable[[tf.Tensor], Batch]:
        """Returns a function of a step to its batches: steps count from the current one on."""
        get, begin = self._batches.reader(), self._batches.current_step()
        return lambda step: tuple(
            get(begin + (step - begin) * self._size + i) for i in range(self._size)
        )

    def current_step(self) -> tf.Tensor:
        """Returns where steps count from, int64 scalar."""
        return self._batches.current_step()

    def advance(self, num_steps: tf.Tensor) -> None:
        """Moves the current step on."""
        self._batches.advance(num_steps * self._size)


def group(iterator: Any, size: int | None) -> Any:
    """Returns an iterator of groups of batches; the iterator itself for a step of one batch."""
    if not size:
        return iterator
    kind = GroupedBatches if isinstance(iterator, GraphBatches | ArrayBatches) else GroupedIterator
    return kind(iterator, size)
