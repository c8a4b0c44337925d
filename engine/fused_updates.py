"""Optimizer updates with fewer operations: the same formulas.

For each variable, a Keras optimizer runs a dozen elementwise operations, each of which reads and
writes the whole variable. TensorFlow has single operations for the common formulas, and XLA fuses
all of an update into one program. Both round differently than Keras, unless XLA is kept from it
(`compiled_updates`). Everything around the formula (clipping, decay, averages, loss scale,
constraints) stays Keras's.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from .patching import patched


class Update(enum.Enum):
    """What computes an optimizer's update."""

    KERAS = enum.auto()  # Keras's operations: the bits of fit
    FUSED = enum.auto()  # one TensorFlow operation per variable
    XLA = enum.auto()  # one compiled program per variable
    SAME_BITS = enum.auto()  # one compiled program for all, see compiled_updates; or Keras's


UpdateStep = Callable[[Any, Any, Any], None]
MakeFunctions = Callable[[Any], dict[str, Callable[..., None]]]


@contextlib.contextmanager
def updates_by(
    optimizers: Iterable[keras.optimizers.Optimizer],
    update: Update,
    make_compiled: MakeFunctions | None = None,
) -> Iterator[None]:
    """Replaces how optimizers update their variables, while a step is traced.

    Context: replica, of which there is one.

    Args:
      optimizers: Built. One for whose formula TensorFlow has no operation keeps Keras's.
      update: What computes the update.
      make_compiled: For `SAME_BITS`: `CompiledUpdates.functions` of an optimizer.
    """
    with contextlib.ExitStack() as stack:
        for optimizer in optimizers:
            changes = _functions(optimizer, update, make_compiled)
            inner = getattr(optimizer, "inner_optimizer", optimizer)  # of LossScaleOptimizer
            stack.enter_context(patched(inner, **changes))
        yield


def _functions(
    optimizer: Any, update: Update, make_compiled: MakeFunctions | None
) -> dict[str, Callable[..., None]]:
    """Returns functions in place of an optimizer's own, by name."""
    if update is Update.KERAS:
        return {}
    if update is Update.SAME_BITS:
        assert make_compiled is not None, "of the state"
        return make_compiled(optimizer)
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    make = _fused if update is Update.FUSED else _compiled
    return {"update_step": make(inner, inner.update_step)}


def _fused(optimizer: keras.optimizers.Optimizer, original: UpdateStep) -> UpdateStep:
    rule = _find_rule(optimizer)

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        if rule is None or isinstance(gradient, tf.IndexedSlices):
            return original(gradient, variable, learning_rate)
        index = optimizer._get_variable_index(variable)
        handle = variable.handle  # of the tf.Variable in Keras's
        gradient = tf.cast(gradient, variable.dtype)
        return rule(optimizer, index, handle, gradient, tf.cast(learning_rate, variable.dtype))

    return update_step


def _compiled(optimizer: keras.optimizers.Optimizer, original: UpdateStep) -> UpdateStep:
    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        compiled = tf.function(
            lambda gradient, rate: original(gradient, variable, rate),
            autograph=False,
            jit_compile=True,
        )
        compiled(gradient, tf.convert_to_tensor(learning_rate))

    return update_step


def _find_rule(optimizer: keras.optimizers.Optimizer) -> Callable[..., None] | None:
    # No isinstance: a subclass may have another formula.
    if type(optimizer) is keras.optimizers.SGD:
        return _sgd
    if type(optimizer) is keras.optimizers.RMSprop and not optimizer.centered:
        return _rmsprop
    if type(optimizer) in (keras.optimizers.Adam, keras.optimizers.AdamW):
        return None if optimizer.amsgrad else _adam
    return None


def _sgd(optimizer: Any, index: int, handle: Any, gradient: Any, rate: Any) -> None:
    if not optimizer.momentum:
        tf.raw_ops.ResourceApplyGradientDescent(var=handle, alpha=rate, delta=gradient)
        return
    tf.raw_ops.ResourceApplyKerasMomentum(
        var=handle,
        accum=optimizer.momentums[index].value.handle,
        lr=rate,
        grad=gradient,
        momentum=tf.cast(optimizer.momentum, gradient.dtype),
        use_nesterov=optimizer.nesterov,
    )


def _rmsprop(optimizer: Any, index: int, handle: Any, gradient: Any, rate: Any) -> None:
    # As in Keras 3, the operation adds epsilon under the root.
    tf.raw_ops.ResourceApplyRMSProp(
        var=handle,
        ms=optimizer._velocities[index].value.handle,
        mom=_rmsprop_momentum(optimizer, index, gradient).handle,
        lr=rate,
        rho=tf.cast(optimizer.rho, gradient.dtype),
        momentum=tf.cast(optimizer.momentum, gradient.dtype),
        epsilon=tf.cast(optimizer.epsilon, gradient.dtype),
        grad=gradient,
    )


def _rmsprop_momentum(optimizer: Any, index: int, gradient: Any) -> tf.Variable:
    if optimizer.momentum:
        variable: tf.Variable = optimizer._momentums[index].value
        return variable
    # The operation needs a variable to write to; with momentum 0, no step reads what it holds.
    scratch = vars(optimizer).setdefault("_fused_scratch", {})
    if index not in scratch:
        with tf.init_scope():
            zeros = tf.zeros(optimizer._velocities[index].shape, gradient.dtype)
            scratch[index] = tf.Variable(zeros, trainable=False)
    return scratch[index]


def _adam(optimizer: Any, index: int, handle: Any, gradient: Any, rate: Any) -> None:
    dtype = gradient.dtype
    # No variable, but a quotient, if the optimizer accumulates gradients itself.
    step = tf.cast(tf.convert_to_tensor(optimizer.iterations) + 1, dtype)
    beta_1, beta_2 = tf.cast(optimizer.beta_1, dtype), tf.cast(optimizer.beta_2, dtype)
    tf.raw_ops.ResourceApplyAdam(
        var=handle,
        m=optimizer._momentums[index].value.handle,
        v=optimizer._velocities[index].value.handle,
        beta1_power=tf.pow(beta_1, step),
        beta2_power=tf.pow(beta_2, step),
        lr=rate,
        beta1=beta_1,
        beta2=beta_2,
        epsilon=tf.cast(optimizer.epsilon, dtype),
        grad=gradient,
    )
