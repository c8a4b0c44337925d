"""What happens between `tape.gradient` and the variables.

In the way of a batch: last. A Keras optimizer drops missing gradients, unscales, clips, decays,
reduces over the replicas, updates, averages and constrains, in this order and in one call. This
module adds what it leaves out: under replicas, all must agree whether the gradients are finite.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from .gradient_analysis import Gradient, wait_for_reads


def apply_gradients(
    optimizer: keras.optimizers.Optimizer,
    gradients: list[Gradient],
    variables: list[keras.Variable],
    *,
    when: tf.Tensor | None = None,
) -> None:
    """Updates `variables` by one step of the optimizer.

    Context: replica, inside `strategy.run`. Every optimizer update of a step goes through here.

    Args:
      optimizer: Built on `variables`.
      gradients: Gradients of the scaled loss on this replica, as they come from the tape.
      variables: One a gradient.
      when: Boolean scalar: whether to update; None: always.

    Raises:
      ValueError: If no variable has a gradient, or under replicas, inside `tf.cond` or a loop.
    """
    if not variables:
        warnings.warn(
            "The model has no trainable variables: only what its layers update themselves changes, "
            "as in fit. Set `layer.trainable = True` on the layers to train.",
            stacklevel=2,
        )
    elif when is None:
        update(optimizer, gradients, variables)
    else:
        present, updated = optimizer._filter_empty_gradients(gradients, variables)
        call_when(when, lambda *values: update(optimizer, values, updated), present)


def update(
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[Gradient],
    variables: Sequence[keras.Variable],
) -> None:
    """Lets the optimizer update the variables. Context: replica."""
    if not tf.executing_eagerly() and not wait_for_reads(gradients, variables):
        gradients = tf.tuple(list(gradients))  # none is there before all of them are
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        gradients = agree_on_finite(gradients)
    try:
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
    except RuntimeError as error:
        if "merge_call" not in str(error):
            raise
        raise ValueError(
            "state.apply_gradients is called inside tf.cond or a loop, which replicas cannot do: "
            "call it outside, as state.apply_gradients(gradients, when=condition)."
        ) from error


def call_when(
    condition: tf.Tensor, function: Callable[..., None], values: Sequence[Gradient] = ()
) -> None:
    """Calls a function on each replica, where the condition holds on all of them.

    Context: replica. A `tf.cond` of one replica cannot hold an update, in which replicas exchange
    gradients: here, all of them enter one `tf.cond` together.

    Args:
      condition: Boolean scalar.
      function: Called in replica context, with this replica's values.
      values: Tensors that are computed whether the condition holds or not.
    """
    condition = _holds_on_all(condition)

    def on_all(strategy: tf.distribute.Strategy, condition: Any, *values: Any) -> tf.Tensor:
        def run() -> tf.Tensor:
            strategy.run(function, args=values)
            return tf.constant(True)

        alike = strategy.experimental_local_results(condition)[0]
        return tf.cond(alike, run, lambda: tf.constant(False))

    tf.distribute.get_replica_context().merge_call(on_all, args=(condition, *values))


def agree_on_finite(gradients: Sequence[Gradient]) -> Sequence[Gradient]:
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
    is_good = _holds_on_all(tf.reduce_all([_is_finite(g) for g in present]))
    return [None if g is None else _poison(g, tf.logical_not(is_good)) for g in gradients]


def _holds_on_all(condition: tf.Tensor) -> tf.Tensor:
    """Returns whether a condition, boolean scalar, holds on all replicas. Context: replica."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return condition
    # As a float, like the gradients: what all devices exchange.
    num_false = tf.cast(tf.logical_not(condition), tf.float32)
    return tf.equal(context.all_reduce(tf.distribute.ReduceOp.SUM, num_false), 0.0)


def _is_finite(gradient: Any) -> tf.Tensor:
    values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
    return tf.reduce_all(tf.math.is_finite(values))


def _poison(gradient: Any, is_bad: tf.Tensor) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        values = _poison(gradient.values, is_bad)
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return tf.where(is_bad, tf.constant(float("nan"), gradient.dtype), gradient)
