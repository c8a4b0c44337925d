"""Uneven batches: each example weighs the same, however a batch is split among the replicas.

Keras divides the mean of each replica by the number of replicas, and the sum over the replicas is a
mean of means: of 15 examples on two replicas, each of the 8 weighs less than each of the 7; and a
replica that has got none gives NaN. Here, a replica's mean is weighed by its share of the examples.
A share is exactly 1 where the batch is even, so that the bits are those of fit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import tensorflow as tf
from keras.src.losses import loss as keras_loss

from .gradient_analysis import Gradient
from .protocols import Batch
from .step_logs import num_examples

if TYPE_CHECKING:
    from .trace_notes import TraceNotes


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
    return Share(num_here, num_global, _factor(num_here, num_global))


def count_global(batch: Batch, strategy: tf.distribute.Strategy) -> tf.Tensor | None:
    """Returns the examples of a global batch, int32 scalar; None if not all are on this worker.

    Context: cross-replica.
    """
    parts = strategy.experimental_local_results(batch)
    if len(parts) < strategy.num_replicas_in_sync:
        return None
    return tf.add_n([num_examples(part) for part in parts])


def take(batches: Iterable[Batch], counts: Sequence[Any], notes: TraceNotes) -> Iterator[Batch]:
    """Yields batches, and notes the share of those taken since the last update. Context: replica.

    Args:
      batches: This replica's part of each.
      counts: What `count_global` returned, one a batch.
      notes: Of the step that takes them.
    """
    for batch, count in zip(batches, counts, strict=True):
        num_here = num_examples(batch)
        notes.replica.add_share(share_of(num_here, _sum(num_here) if count is None else count))
        yield batch


def mean_over_replicas(value: Any, counts: Any, strategy: tf.distribute.Strategy) -> tf.Tensor:
    """Returns the mean of what replicas log. Context: cross-replica.

    Args:
      value: One scalar a replica.
      counts: Examples of each, which their values weigh; None: all weigh the same.
      strategy: Of the replicas.
    """
    values = strategy.experimental_local_results(value)
    if len(values) == 1:
        return values[0]
    mean = tf.reduce_mean(values, axis=0)
    if counts is None:
        return mean
    weights = tf.stack(strategy.experimental_local_results(counts))
    stacked, weights = tf.stack(values), tf.cast(weights, mean.dtype)
    here = tf.where(tf.equal(weights, 0), tf.zeros_like(stacked), stacked)
    weighed = tf.math.divide_no_nan(tf.reduce_sum(here * weights), tf.reduce_sum(weights))
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


@contextlib.contextmanager
def weighs_examples(notes: TraceNotes, *, in_optimizers: bool) -> Iterator[None]:
    """Lets Keras weigh losses by the shares in the notes, while a step is traced.

    Context: cross-replica, around the call of all replicas.

    Args:
      notes: Of the step.
      in_optimizers: Whether optimizers see to it that gradients are zero on an empty replica: for
        steps that call them themselves.
    """
    kinds = (keras.optimizers.Optimizer, keras.optimizers.LossScaleOptimizer)
    with contextlib.ExitStack() as stack:
        for name, make in _LOSS_FUNCTIONS.items():
            stack.enter_context(_replaced(keras_loss, name, make, notes))
        for kind in kinds if in_optimizers else ():
            stack.enter_context(_replaced(kind, "apply", _apply, notes))
        yield


@contextlib.contextmanager
def _replaced(
    owner: Any, name: str, make: Callable[[Any, TraceNotes], Any], notes: TraceNotes
) -> Iterator[None]:
    is_own, original = name in vars(owner), getattr(owner, name)
    setattr(owner, name, make(original, notes))
    try:
        yield
    finally:
        if is_own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)


def _scale(original: Callable[[Any], Any], notes: TraceNotes) -> Callable[[Any], Any]:
    def scale(value: Any) -> Any:
        share, value = notes.replica.share, original(value)
        return value if share is None else value * tf.cast(share.factor, value.dtype)

    return scale


def _unscale(original: Callable[[Any], Any], notes: TraceNotes) -> Callable[[Any], Any]:
    def unscale(value: Any) -> Any:
        share = notes.replica.share
        return original(value) if share is None else share.unscale(value)

    return unscale


def _apply_mask(original: Callable[..., Any], notes: TraceNotes) -> Callable[..., Any]:
    def apply_mask(sample_weight: Any, mask: Any, dtype: Any, reduction: Any) -> Any:
        weights = original(sample_weight, mask, dtype, reduction)
        is_mean = mask is not None and reduction in ("mean", "sum_over_batch_size")
        if not is_mean or notes.replica.share is None:
            return weights
        # Keras has divided by the entries that are valid here: those of the global batch count.
        valid = tf.reduce_sum(tf.cast(mask, tf.float32))
        here = tf.stack([tf.cast(tf.size(mask), tf.float32), valid])
        ratio = tf.math.divide_no_nan(_ratio(_sum(here)), _ratio(here))
        return weights * tf.cast(ratio, weights.dtype)

    return apply_mask


def _reduce_values(original: Callable[..., Any], notes: TraceNotes) -> Callable[..., Any]:
    def reduce_values(
        values: Any, sample_weight: Any = None, reduction: Any = "sum_over_batch_size"
    ) -> Any:
        replica = notes.replica
        by_weight = reduction == "mean_with_sample_weight" and sample_weight is not None
        share = replica.share
        if share is None or not by_weight:
            return original(values, sample_weight, reduction)
        weight = tf.cast(tf.reduce_sum(sample_weight), tf.float32)
        replica.share = share._replace(factor=_factor(weight, _sum(weight)))
        try:
            return original(values, sample_weight, reduction)
        finally:
            replica.share = share

    return reduce_values


_LOSS_FUNCTIONS = {
    "scale_loss_for_distribution": _scale,
    "unscale_loss_for_distribution": _unscale,
    "apply_mask": _apply_mask,
    "reduce_values": _reduce_values,
}


def _apply(original: Callable[..., Any], notes: TraceNotes) -> Callable[..., Any]:
    def apply(self: Any, grads: Sequence[Gradient], trainable_variables: Any = None) -> Any:
        return original(self, zero_if_empty(grads, notes.replica.share), trainable_variables)

    return apply


def _factor(amount: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
    num_replicas = tf.cast(tf.distribute.get_strategy().num_replicas_in_sync, amount.dtype)
    return tf.math.divide_no_nan(_float(amount * num_replicas), _float(total))


def _ratio(pair: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(pair[0], pair[1])


def _float(number: tf.Tensor) -> tf.Tensor:
    return tf.cast(number, tf.float32)


def _sum(value: tf.Tensor) -> tf.Tensor:
    """Returns the sum over all replicas, in the dtype of the value. Context: replica."""
    context = tf.distribute.get_replica_context()
    total = context.all_reduce(tf.distribute.ReduceOp.SUM, _float(value))
    return tf.cast(total, value.dtype)
