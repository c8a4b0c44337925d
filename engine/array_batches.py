"""ArrayBatches: the batches of arrays in memory, in their order, made by the graph that reads them.

For `evaluate` and `predict`, which shuffle nothing: a batch is a slice of each array, and the
threads of tf.data, whose hand-overs cost more than the batch of a small model, are not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from .protocols import Batch, OrderedArrays


class Recipe:
    """How the rows of arrays become batches; tf.function takes two of the same key for one.

    Args:
      arrays: Only their dtypes and the shapes of their rows matter.
    """

    def __init__(self, arrays: OrderedArrays) -> None:
        self.like = arrays._replace(tensors=tf.nest.map_structure(_spec_of, arrays.tensors))
        self.specs = tf.nest.flatten(self.like.tensors)
        self.key = (
            arrays.key, arrays.batch_size, repr(self.like.tensors), repr(arrays.element_spec)
        )  # fmt: skip

    def __tf_tracing_type__(self, context: Any) -> Any:
        """Returns what tf.function compares."""
        return _SameRecipe(self)


class _SameRecipe(tf.types.experimental.TraceType):  # type: ignore[misc]
    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def is_subtype_of(self, other: Any) -> bool:
        return bool(self == other)

    def most_specific_common_supertype(self, others: Sequence[Any]) -> Any:
        return self if all(self == other for other in others) else None

    def placeholder_value(self, placeholder_context: Any) -> Recipe:
        return self._recipe

    def cast(self, value: Recipe, cast_context: Any) -> Recipe:
        return value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SameRecipe) and self._recipe.key == other._recipe.key

    def __hash__(self) -> int:
        return hash(self._recipe.key)


class ArrayBatches(NamedTuple):
    """`GraphBatches` of `OrderedArrays`. As a named tuple, it is an argument of a graph.

    The graph is then for all arrays of the same recipe, whatever their rows are and however many.

    Attributes:
      packed: All arrays, in one scalar that says nothing of their shapes.
      step: At which a call begins, int64 scalar.
      recipe: How rows become batches.
    """

    packed: tf.Tensor
    step: tf.Tensor
    recipe: Recipe

    @classmethod
    def of(cls, arrays: OrderedArrays) -> ArrayBatches:
        """Returns the batches of arrays, from the first one on. Context: on the host."""
        packed = tf.raw_ops.OptionalFromValue(components=tf.nest.flatten(arrays.tensors))
        return cls(packed, tf.constant(0, tf.int64), Recipe(arrays))

    def at(self, step: int) -> ArrayBatches:
        """Returns the batches from a step on. Context: on the host."""
        return self._replace(step=tf.constant(step, tf.int64))

    @property
    def element_spec(self) -> Any:
        """The spec of a batch."""
        return self.recipe.like.element_spec

    def spec_of_replica(self, num_replicas: int) -> Any:
        """The spec of a batch: there is one replica."""
        return self.element_spec

    def reader(self) -> Callable[[tf.Tensor], Batch]:
        """Returns a function of a step, int64 scalar, to its batch.

        Beyond the end it returns the last one. Context: graph, or on the host.
        """
        like, rows = self.recipe.like, self._unpack()
        num_rows = tf.shape(rows[0], tf.int64)[0]
        last = self._count(num_rows) - 1

        def get(step: tf.Tensor) -> Batch:
            begin = tf.minimum(step, last) * like.batch_size
            end = tf.minimum(begin + like.batch_size, num_rows)
            raw = tf.nest.pack_sequence_as(like.tensors, [one[begin:end] for one in rows])
            return tf.nest.map_structure(
                lambda value, spec: tf.ensure_shape(value, spec.shape),
                like.finish(raw),
                like.element_spec,
            )

        return get

    def batches(self) -> Iterator[Batch]:
        """Yields the batches from the step on. Context: on the host."""
        get = self.reader()
        num_rows = tf.shape(self._unpack()[0], tf.int64)[0]
        for step in range(int(self.step), int(self._count(num_rows))):
            yield get(tf.constant(step, tf.int64))

    def current_step(self) -> tf.Tensor:
        """Returns the step at which a call begins, int64 scalar."""
        return self.step

    def advance(self, num_steps: tf.Tensor) -> None:
        """Does nothing: the host says where each call begins."""

    def _unpack(self) -> Sequence[tf.Tensor]:
        unpacked: Sequence[tf.Tensor] = tf.raw_ops.OptionalGetValue(
            optional=self.packed,
            output_types=[spec.dtype for spec in self.recipe.specs],
            output_shapes=[spec.shape for spec in self.recipe.specs],
        )
        return unpacked

    def _count(self, num_rows: tf.Tensor) -> tf.Tensor:
        """Returns the number of batches."""
        # Where the graph knows the size of a batch, there is no partial one.
        size = self.recipe.like.batch_size
        is_static = tf.nest.flatten(self.element_spec)[0].shape[0] is not None
        return (num_rows + (0 if is_static else size - 1)) // size


def _spec_of(array: tf.Tensor) -> tf.TensorSpec:
    return tf.TensorSpec([None, *array.shape[1:]], array.dtype)
