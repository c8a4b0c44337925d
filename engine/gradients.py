"""What happens between `tape.gradient` and the variables.

In the way of a batch: last. A Keras optimizer drops missing gradients, unscales, clips, decays,
reduces over the replicas, updates, averages and constrains, in this order and in one call. This
module adds what it leaves out: under replicas, all must agree whether the gradients are finite.
"""

from __future__ import annotations

import warnings
from typing import Any

import keras
import tensorflow as tf

Gradient = Any  # tf.Tensor, tf.IndexedSlices, or None where the loss does not depend on it


def apply_gradients(
    optimizer: keras.optimizers.Optimizer,
    gradients: list[Gradient],
    variables: list[keras.Variable],
) -> None:
    """Updates `variables` by one step of the optimizer.

    Context: replica, inside `strategy.run`. Every optimizer update of a step goes through here.

    Args:
      optimizer: Built on `variables`.
      gradients: Gradients of the scaled loss on this replica, as they come from the tape.
      variables: One a gradient.

    Raises:
      ValueError: If no variable has a gradient.
    """
    if not variables:
        warnings.warn(
            "The model has no trainable variables: only what its layers update themselves changes, "
            "as in fit. Set `layer.trainable = True` on the layers to train.",
            stacklevel=2,
        )
        return
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        gradients = agree_on_finite(gradients)
    optimizer.apply_gradients(zip(gradients, variables, strict=True))


def agree_on_finite(gradients: list[Gradient]) -> list[Gradient]:
    """Makes a gradient NaN on every replica if any replica has one that is not finite.

    Context: replica. `LossScaleOptimizer` decides by the gradients of the first replica, before
    they are reduced: an overflow on another replica would reach the weights. With this, all
    replicas skip the step together and the scale is halved.

    Args:
      gradients: Of this replica.

    Returns:
      The same gradients, unchanged bit for bit if all are finite on all replicas.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return gradients
    present = [g for g in gradients if g is not None]
    is_bad = tf.logical_not(tf.reduce_all([_is_finite(g) for g in present]))
    context = tf.distribute.get_replica_context()
    num_bad = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(is_bad, tf.float32))
    return [None if g is None else _poison(g, num_bad > 0) for g in gradients]


def _is_finite(gradient: Any) -> tf.Tensor:
    values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
    return tf.reduce_all(tf.math.is_finite(values))


def _poison(gradient: Any, is_bad: tf.Tensor) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        values = _poison(gradient.values, is_bad)
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return tf.where(is_bad, tf.constant(float("nan"), gradient.dtype), gradient)
