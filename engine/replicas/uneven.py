"""Uneven batches: each example weighs the same, however a batch is split among the replicas.

Keras divides the mean of each replica by the number of replicas, and the sum over the replicas is a
mean of means: of 15 examples on two replicas, each of the 8 weighs less than each of the 7; and a
replica that has got none gives NaN. Here, a replica's mean is weighed by its share of the examples.
A share is exactly 1 where the batch is even, so that the bits are those of fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from ..gradient_analysis import Gradient
from ..protocols import Batch
from ..step_logs import num_examples


class Share(NamedTuple):
    """What a replica has of a global batch.

    Attributes:
      num_here: Examples on this replica, int32 scalar.
      num_global: Examples on all replicas, int32 scalar.
      factor: What its mean weighs, float32 scalar; 1 is as much as the mean of any other.
    """

    num_here: tf.Tensor
    num_global: tf.Tensor
    factor: tf.Tensor

    @property
    def is_empty(self) -> tf.Tensor:
        """Whether the replica has got no example, boolean scalar."""
        return tf.equal(self.num_here, 0)

    @property
    def even_part(self) -> tf.Tensor:
        """How many examples each replica would have in an even split, float32 scalar."""
        return _float(self.num_global) / tf.distribute.get_strategy().num_replicas_in_sync

    def unscale(self, loss: tf.Tensor) -> tf.Tensor:
        """Returns the mean over this replica's examples of a loss that `factor` has weighed."""
        ratio = tf.math.divide_no_nan(_float(self.num_global), _float(self.num_here))
        return loss * tf.cast(ratio, loss.dtype)

    def weigh(self, mean: tf.Tensor) -> tf.Tensor:
        """Returns a mean over this replica's examples, weighed; 0 if there are none."""
        here = tf.where(self.is_empty, tf.zeros_like(mean), mean)
        return here * tf.cast(self.factor, mean.dtype)


def share_of(num_here: tf.Tensor, num_global: tf.Tensor) -> Share:
    """Returns the share of a replica that has `num_here` of `num_global` examples."""
    return Share(num_here, num_global, factor_of(num_here, num_global))


def count_global(batch: Batch, strategy: tf.distribute.Strategy) -> tf.Tensor | None:
    """Returns the examples of a global batch, int32 scalar; None if not all are on this worker.

    Context: cross-replica.
    """
    parts = strategy.experimental_local_results(batch)
    if len(parts) < strategy.num_replicas_in_sync:
        return None
    return tf.add_n([num_examples(part) for part in parts])


def take(
    batches: Iterable[Batch], counts: Sequence[Any], note: Callable[[Share], None]
) -> Iterator[Batch]:
    """Yields batches, and notes the share of each when it is taken. Context: replica.

    Args:
      batches: This replica's part of each.
      counts: What `count_global` returned, one a batch.
      note: Called with each share.
    """
    for batch, count in zip(batches, counts, strict=True):
        here = num_examples(batch)
        share = share_of(here, sum_over_replicas(here) if count is None else count)
        note(share)
        yield feed_row(batch, share.is_empty)


def feed_row(batch: Batch, is_empty: tf.Tensor) -> Batch:
    """Returns a batch; in place of an empty one, a row of zeros. Context: replica.

    Of no row, some operations fail, among them convolutions and pooling. Ragged and sparse batches
    stay as they are.
    """
    leaves = tf.nest.flatten(batch)
    may_be = [tf.is_tensor(leaf) and not _has_rows(leaf) for leaf in leaves]
    present = [leaf for leaf, is_open in zip(leaves, may_be, strict=True) if is_open]
    if not present or not all(isinstance(leaf, tf.Tensor) for leaf in present):
        return batch

    def row() -> list[tf.Tensor]:
        shapes = [tf.concat([[1], tf.shape(leaf)[1:]], 0) for leaf in present]
        return [tf.zeros(shape, x.dtype) for shape, x in zip(shapes, present, strict=True)]

    chosen = iter(tf.cond(is_empty, row, lambda: present))
    pairs = zip(leaves, may_be, strict=True)
    fed = [next(chosen) if is_open else leaf for leaf, is_open in pairs]
    return tf.nest.pack_sequence_as(batch, fed)


def without_row(outputs: Any, is_empty: tf.Tensor) -> Any:
    """Returns the outputs of a model; none where `feed_row` has fed it a row."""

    def drop(output: Any) -> Any:
        if not isinstance(output, tf.Tensor) or output.shape.rank == 0:
            return output
        return tf.cond(is_empty, lambda: output[:0], lambda: output)

    return tf.nest.map_structure(drop, outputs)


def _has_rows(leaf: tf.Tensor) -> bool:
    """Returns whether the shape says that there are some, or that there is no such dimension."""
    return leaf.shape.rank == 0 or bool(leaf.shape.rank and leaf.shape[0])


def of_all_replicas(value: Any, strategy: tf.distribute.Strategy) -> Sequence[tf.Tensor]:
    """Returns the value of each replica, of those on other workers too. Context: cross-replica.

    Args:
      value: One scalar a replica, or one array.
      strategy: Of the replicas.
    """
    values: Sequence[tf.Tensor] = strategy.experimental_local_results(value)
    if len(values) == strategy.num_replicas_in_sync:
        return values
    found = strategy.run(_gather, args=(value,))
    stacked = tf.cast(strategy.experimental_local_results(found)[0], values[0].dtype)
    gathered: Sequence[tf.Tensor] = tf.unstack(stacked, num=strategy.num_replicas_in_sync)
    return gathered


def _gather(value: tf.Tensor) -> tf.Tensor:
    """Returns the values of all replicas, stacked, as float64. Context: replica."""
    context: Any = tf.distribute.get_replica_context()
    place = tf.cast(context.replica_id_in_sync_group, tf.int32)
    is_mine = tf.equal(tf.range(context.num_replicas_in_sync), place)
    is_mine = tf.reshape(is_mine, [-1] + [1] * value.shape.rank)
    # To each value, the other replicas add zeros: all have its bits, as in one process.
    value = tf.cast(value, tf.float64)
    placed = tf.where(is_mine, value, tf.zeros_like(value))
    gathered: tf.Tensor = context.all_reduce(tf.distribute.ReduceOp.SUM, placed)
    return gathered


def mean_over_replicas(
    values: Sequence[tf.Tensor], counts: Sequence[tf.Tensor] | None
) -> tf.Tensor:
    """Returns the mean of what replicas log. Context: cross-replica.

    Args:
      values: One scalar a replica, or one array.
      counts: Examples of each, which their values weigh; None: all weigh the same.
    """
    if len(values) == 1:
        return values[0]
    mean = tf.reduce_mean(values, axis=0)
    if counts is None:
        return mean
    weights = tf.stack(counts)
    weights = tf.reshape(tf.cast(weights, mean.dtype), [-1] + [1] * mean.shape.rank)
    stacked = tf.stack(values)
    here = tf.where(tf.equal(weights, 0), tf.zeros_like(stacked), stacked)
    weighed = tf.math.divide_no_nan(tf.reduce_sum(here * weights, axis=0), tf.reduce_sum(weights))
    return tf.where(tf.reduce_all(tf.equal(weights, weights[0])), mean, weighed)


def zero_if_empty(gradients: Sequence[Gradient], share: Share | None) -> list[Gradient]:
    """Returns gradients, which are zero if the replica has got no example. Context: replica."""
    if share is None:
        return list(gradients)
    values = [g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients]
    present = [tf.convert_to_tensor(value) for value in values if value is not None]
    zeros = lambda: [tf.zeros_like(value) for value in present]  # noqa: E731
    # Not a `where` a gradient: the branch that is taken copies nothing.
    chosen = iter(tf.cond(share.is_empty, zeros, lambda: present)) if present else iter(())
    return [None if g is None else _with_values(g, next(chosen)) for g in gradients]


def _with_values(gradient: Gradient, values: tf.Tensor) -> Gradient:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return values


def factor_of(amount: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
    """Returns what a mean over `amount` weighs, of `total` on all replicas; float32 scalar."""
    num_replicas = tf.cast(tf.distribute.get_strategy().num_replicas_in_sync, amount.dtype)
    return tf.math.divide_no_nan(_float(amount * num_replicas), _float(total))


def _float(number: tf.Tensor) -> tf.Tensor:
    return tf.cast(number, tf.float32)


def sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """Returns the sum over all replicas, in the dtype of the value. Context: replica."""
    context = tf.distribute.get_replica_context()
    total = context.all_reduce(tf.distribute.ReduceOp.SUM, _float(value))
    return tf.cast(total, value.dtype)
