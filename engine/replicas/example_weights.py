"""What of Keras is replaced while a step is traced in which each example weighs the same.

Keras scales means by the number of replicas in two functions, but no loss that is a scalar, and
divides by what one replica has in two more. They are replaced, and not what calls them: a model's
own `train_step` is right too.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import nn as keras_nn
from keras.src.losses import loss as keras_loss
from keras.src.trainers import compile_utils

from ..gradient_analysis import Gradient
from ..patching import patched
from ..trace_notes import TraceNotes
from .uneven import factor_of, sum_over_replicas, zero_if_empty

# Reductions of a loss; the last one divides by the sample weights.
_MEANS = ("mean", "sum_over_batch_size", "mean_with_sample_weight")


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
    places: list[tuple[Any, str, Callable[[Any, TraceNotes], Any]]] = [
        (compile_utils, "loss_module", _of_outputs),
        *((keras_loss, name, make) for name, make in _LOSS_FUNCTIONS.items()),
        (keras_loss.Loss, "__call__", _call_loss),
        (keras_nn, "_compute_moments_sync", _moments),
        *((kind, "apply", _apply) for kind in kinds if in_optimizers),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, make in places:
            stack.enter_context(patched(owner, **{name: make(getattr(owner, name), notes)}))
        yield


def _scale(original: Callable[[Any], Any], notes: TraceNotes) -> Callable[[Any], Any]:
    def scale(value: Any) -> Any:
        share = notes.replica.share
        if share is None:
            return original(value)
        if notes.replica.num_open_means > 1:
            return value  # a part of a loss that is scaled as a whole
        value = original(value)
        return value * tf.cast(share.factor, value.dtype)

    return scale


def _call_loss(original: Callable[..., Any], notes: TraceNotes) -> Callable[..., Any]:
    def call_loss(self: keras.losses.Loss, *args: Any, **kwargs: Any) -> Any:
        replica, is_mean = notes.replica, self.reduction in _MEANS
        replica.num_open_means += is_mean
        try:
            return original(self, *args, **kwargs)
        finally:
            replica.num_open_means -= is_mean

    return call_loss


def _unscale(original: Callable[[Any], Any], notes: TraceNotes) -> Callable[[Any], Any]:
    def unscale(value: Any) -> Any:
        share = notes.replica.share
        if share is None:
            return original(value)
        # One that is not reduced was not scaled.
        return value if value.shape.rank else share.unscale(value)

    return unscale


def _of_outputs(original: Any, notes: TraceNotes) -> Any:
    """Returns what unscales the loss of one output, which weighs as much on each replica."""
    keras_unscale = keras_loss.unscale_loss_for_distribution  # before it is replaced

    def unscale(value: Any) -> Any:
        share = notes.replica.share
        if share is None:
            return keras_unscale(value)
        value = value if value.shape.rank else keras_unscale(value)
        return tf.where(share.is_empty, tf.zeros_like(value), value)

    return types.SimpleNamespace(unscale_loss_for_distribution=unscale)


def _apply_mask(original: Callable[..., Any], notes: TraceNotes) -> Callable[..., Any]:
    def apply_mask(sample_weight: Any, mask: Any, dtype: Any, reduction: Any) -> Any:
        weights = original(sample_weight, mask, dtype, reduction)
        is_mean = mask is not None and reduction in ("mean", "sum_over_batch_size")
        if not is_mean or notes.replica.share is None:
            return weights
        # Keras has divided by the entries that are valid here: those of the global batch count.
        valid = tf.reduce_sum(tf.cast(mask, tf.float32))
        here = tf.stack([tf.cast(tf.size(mask), tf.float32), valid])
        here = tf.where(notes.replica.share.is_empty, 0.0, here)
        ratio = tf.math.divide_no_nan(_ratio(sum_over_replicas(here)), _ratio(here))
        return weights * tf.cast(ratio, weights.dtype)

    return apply_mask


def _reduce_values(original: Callable[..., Any], notes: TraceNotes) -> Callable[..., Any]:
    def reduce_values(
        values: Any, sample_weight: Any = None, reduction: Any = "sum_over_batch_size"
    ) -> Any:
        replica = notes.replica
        by_weight = reduction == "mean_with_sample_weight" and sample_weight is not None
        share = replica.share
        if share is not None and values.shape.rank == 0 and reduction in _MEANS:
            # Keras leaves it as it is, n times too large on n replicas: it is a mean, too.
            return keras_loss.scale_loss_for_distribution(values)
        if share is None or not by_weight:
            return original(values, sample_weight, reduction)
        weight = tf.cast(tf.reduce_sum(sample_weight), tf.float32)
        weight = tf.where(share.is_empty, 0.0, weight)
        replica.share = share._replace(factor=factor_of(weight, sum_over_replicas(weight)))
        try:
            return original(values, sample_weight, reduction)
        finally:
            replica.share = share

    return reduce_values


def _moments(original: Callable[..., Any], notes: TraceNotes) -> Callable[..., Any]:
    def moments(x: tf.Tensor, axes: Any, keepdims: bool) -> Any:
        share = notes.replica.share
        if share is None:
            return original(x, axes, keepdims)
        # Of all replicas, without the row of zeros that stands in for no example.
        x = tf.cond(share.is_empty, lambda: x[:0], lambda: x)
        found = original(x, axes, keepdims)
        return [tf.where(share.is_empty, tf.stop_gradient(one), one) for one in found]

    return moments


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


def _ratio(pair: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(pair[0], pair[1])
