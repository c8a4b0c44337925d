"""What happens between `tape.gradient` and the variables.

In the way of a batch: last. A Keras optimizer drops missing gradients, unscales, clips, decays,
reduces over the replicas, updates, averages and constrains, in this order and in one call. This
module adds what it leaves out: with `TrainConfig.on_nonfinite`, an update is only made where all is
finite, on all replicas. `replicas/updates` says how the optimizer reduces, clips and skips.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from .gradient_analysis import Gradient, wait_for_reads
from .nonfinite import NonfiniteRecord

Update = Callable[..., None]


class Guard(NamedTuple):
    """Lets updates be made only where all is finite. Context of the methods: replica.

    Attributes:
      record: Where the steps are noted that are left out.
      losses: Of the step so far, before they are scaled.
    """

    record: NonfiniteRecord
    losses: Sequence[tf.Tensor]

    def check(
        self,
        optimizer: keras.optimizers.Optimizer,
        gradients: Sequence[Gradient],
        variables: Sequence[keras.Variable],
    ) -> tf.Tensor:
        """Returns whether the losses and each gradient are finite on this replica.

        Of a `LossScaleOptimizer`, only the losses count: a scaled gradient that overflows is how it
        finds its scale, and it leaves out that update itself.
        """
        is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        pairs = () if is_scaled else zip(gradients, variables, strict=True)
        flags = {id(variable): is_finite(gradient) for gradient, variable in pairs}
        losses = [is_finite(loss) for loss in self.losses if _is_here(loss)]
        return self.record.order(flags, tf.reduce_all(losses))

    def protect(self, function: Update) -> Update:
        """Returns a function that calls another one where all is finite, on all replicas.

        Its first argument is what `check` returned, the others are of the function.
        """

        def call(finite: tf.Tensor, *values: Any) -> None:
            finite = holds_on_all(finite)
            permits = self.record.permits(finite)
            call_on_all(permits, function, values, otherwise=lambda: self.record.close(finite))

        return call


def apply_gradients(
    optimizer: keras.optimizers.Optimizer,
    gradients: list[Gradient],
    variables: list[keras.Variable],
    *,
    when: tf.Tensor | None = None,
    guard: Guard | None = None,
) -> None:
    """Updates `variables` by one step of the optimizer.

    Context: replica, inside `strategy.run`. Every optimizer update of a step goes through here.

    Args:
      optimizer: Built on `variables`.
      gradients: Gradients of the scaled loss on this replica, as they come from the tape.
      variables: One a gradient.
      when: Boolean scalar: whether to update; None: always.
      guard: Lets the update be made only where all is finite; None: it is made in any case.

    Raises:
      ValueError: If no variable has a gradient, or under replicas, inside `tf.cond` or a loop.
    """
    if not variables:
        warnings.warn(
            "The model has no trainable variables: only what its layers update themselves changes, "
            "as in fit. Set `layer.trainable = True` on the layers to train.",
            stacklevel=2,
        )
    elif when is None and guard is None:
        update(optimizer, gradients, variables)
    else:
        values, updated = optimizer._filter_empty_gradients(gradients, variables)
        apply: Update = lambda *values: update(optimizer, values, updated)  # noqa: E731
        if guard is not None:
            finite = guard.check(optimizer, values, updated)
            apply, values = guard.protect(apply), [finite, *values]
        if when is None:
            apply(*values)
        else:
            call_when(when, apply, values)


def update(
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[Gradient],
    variables: Sequence[keras.Variable],
) -> None:
    """Lets the optimizer update the variables. Context: replica."""
    if not tf.executing_eagerly() and not wait_for_reads(gradients, variables):
        gradients = tf.tuple(list(gradients))  # none is there before all of them are
    try:
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
    except RuntimeError as error:
        if "merge_call" not in str(error):
            raise
        raise ValueError(
            "state.apply_gradients is called inside tf.cond or a loop, which replicas cannot do: "
            "call it outside, as state.apply_gradients(gradients, when=condition)."
        ) from error


def call_when(condition: tf.Tensor, function: Update, values: Sequence[Any] = ()) -> None:
    """Calls a function on each replica, where the condition holds on all of them.

    Context: replica. A `tf.cond` of one replica cannot hold an update, in which replicas exchange
    gradients: here, all of them enter one `tf.cond` together.

    Args:
      condition: Boolean scalar.
      function: Called in replica context, with this replica's values.
      values: Tensors that are computed whether the condition holds or not.
    """
    call_on_all(holds_on_all(condition), function, values)


def call_on_all(
    condition: tf.Tensor,
    function: Update,
    values: Sequence[Any],
    *,
    otherwise: Callable[[], None] = lambda: None,
) -> None:
    """Calls a function on each replica if a condition holds, which is alike on all of them.

    If it does not hold, `otherwise` is called once, in cross-replica context.
    """

    def not_run() -> tf.Tensor:
        otherwise()
        return tf.constant(False)

    def on_all(strategy: tf.distribute.Strategy, condition: Any, *values: Any) -> tf.Tensor:
        def run() -> tf.Tensor:
            strategy.run(function, args=values)
            return tf.constant(True)

        alike = strategy.experimental_local_results(condition)[0]
        return tf.cond(alike, run, not_run)

    tf.distribute.get_replica_context().merge_call(on_all, args=(condition, *values))


def holds_on_all(condition: tf.Tensor) -> tf.Tensor:
    """Returns whether conditions, booleans of any shape, hold on all replicas. Context: replica."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return condition
    # As a float, like the gradients: what all devices exchange.
    num_false = tf.cast(tf.logical_not(condition), tf.float32)
    return tf.equal(context.all_reduce(tf.distribute.ReduceOp.SUM, num_false), 0.0)


def is_finite(gradient: Any) -> tf.Tensor:
    """Returns whether all of a tensor, or of the rows of a sparse gradient, is finite."""
    values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
    return tf.reduce_all(tf.math.is_finite(values))


def _is_here(loss: Any) -> bool:
    """Returns whether a loss is a tensor of the graph that is being built, not of one inside it."""
    if not tf.is_tensor(loss):
        return False
    return tf.executing_eagerly() or loss.graph is tf.compat.v1.get_default_graph()
