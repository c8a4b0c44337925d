"""The optimizer's update as one program of XLA, with all bits of Keras's operations.

A Keras optimizer runs a dozen elementwise operations on each variable, each of which reads and
writes all of it. XLA makes one pass of them. Left alone, it also makes one operation of a product
and the sum that follows, which rounds once instead of twice. Between the two, this module puts an
exclusive or with a zero that XLA does not know to be one: nothing is fused over it, and no bit
changes. What is left are operations that IEEE 754 rounds, in the order of Keras.

Not so `1 / sqrt(x)`, into which TensorFlow's graph optimizer turns a division by a root (RMSprop,
Adagrad): TensorFlow approximates it in its own way. Optimizers that have it keep their operations.

Compiling takes a second or more, which short runs never get back: nobody has it without asking.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from .update_check import has_same_bits

_KINDS = ("SGD", "Adam", "AdamW", "Nadam", "Lion")
# What rounds: XLA may fuse it with what follows, or cancel it out.
_ROUNDED = ("Mul", "Square", "Sqrt")

Pairs = Sequence[tuple[Any, Any]]  # gradients and variables


class CompiledUpdates:
    """Makes compiled updates of optimizers, and knows what became of them.

    Attributes:
      outcome: In words, for people; "" while no update has been looked at.
    """

    def __init__(self) -> None:
        self.outcome = ""
        self._verdicts: dict[Any, bool] = {}

    def functions(self, optimizer: Any) -> dict[str, Callable[..., None]]:
        """Returns functions in place of an optimizer's own, by name; none if it is not eligible.

        Args:
          optimizer: Built.
        """
        if not is_eligible(optimizer):
            return {}
        update = optimizer._distributed_tf_update_step

        def update_all(strategy: Any, pairs: Pairs, learning_rate: Any) -> None:
            chosen = self._choose(optimizer, pairs)
            ids = {id(variable) for _, variable in chosen}
            plain = [pair for pair in pairs if id(pair[1]) not in ids]
            for _, variable in plain:
                _decay(
                    optimizer,
                    variable,
                    lambda v, decay: v * decay * tf.cast(learning_rate, v.dtype),
                )
            update(strategy, plain, learning_rate)
            if chosen:
                run_compiled(optimizer, chosen, learning_rate)

        # Whose variables decay in a program is known once the gradients are.
        return {"_apply_weight_decay": _do_nothing, "_distributed_tf_update_step": update_all}

    def _choose(self, optimizer: Any, pairs: Pairs) -> Pairs:
        """Returns the gradients and variables whose update is compiled."""
        chosen = [pair for pair in pairs if _is_dense(*pair)]
        if not chosen:
            return []
        shapes = tuple(sorted({tuple(variable.shape) for _, variable in chosen}))
        key = (id(optimizer), shapes)
        if key not in self._verdicts:
            with tf.init_scope():
                self._verdicts[key] = has_same_bits(optimizer, shapes, run_compiled)
        if self._verdicts[key]:
            self.outcome = "compiled by XLA with all bits of Keras's operations, as a check found"
            return chosen
        self.outcome = "Keras's operations: compiled by XLA, it has other bits on this processor"
        return []


def is_eligible(optimizer: Any) -> bool:
    """Returns whether the update of an optimizer can be compiled with all its bits."""
    # No isinstance: a subclass may have another formula.
    if type(optimizer) not in [getattr(keras.optimizers, kind) for kind in _KINDS]:
        return False
    # A maximum of XLA's treats NaN otherwise; Keras's own accumulation updates in a tf.cond.
    return not getattr(optimizer, "amsgrad", False) and not optimizer.gradient_accumulation_steps


def _is_dense(gradient: Any, variable: tf.Variable) -> bool:
    return not isinstance(gradient, tf.IndexedSlices) and variable.dtype == tf.float32


def run_compiled(optimizer: Any, pairs: Pairs, learning_rate: Any) -> None:
    """Decays and updates variables by one compiled program, which writes all in place."""
    variables = [variable for _, variable in pairs]

    def program(gradients: Sequence[tf.Tensor], rate: tf.Tensor, iterations: tf.Tensor) -> None:
        # The sign of a count, which is never set; XLA cannot know.
        zero = tf.cast(tf.bitwise.right_shift(iterations, tf.constant(63, tf.int64)), tf.int32)
        with _sealed(zero):
            for gradient, variable in zip(gradients, variables, strict=True):
                # Of Keras's three factors, TensorFlow's graph optimizer multiplies the last two.
                _decay(optimizer, variable, lambda v, decay: v * (decay * rate))
                optimizer.update_step(gradient, variable, rate)

    compiled = tf.function(program, autograph=False, jit_compile=True)
    rate, iterations = (tf.convert_to_tensor(v) for v in (learning_rate, optimizer.iterations))
    compiled([gradient for gradient, _ in pairs], rate, iterations)


def _decay(optimizer: Any, variable: tf.Variable, product: Callable[..., tf.Tensor]) -> None:
    if optimizer.weight_decay is not None and optimizer._use_weight_decay(variable):
        variable.assign_sub(product(variable, tf.cast(optimizer.weight_decay, variable.dtype)))


def _do_nothing(variables: Sequence[Any]) -> None:
    """Takes the place of Keras's weight decay."""


@contextlib.contextmanager
def _sealed(zero: tf.Tensor) -> Iterator[None]:
    """Seals float32 operations of the current graph that round; see above.

    Args:
      zero: Scalar int32 of the graph.
    """
    graph: Any = tf.compat.v1.get_default_graph()
    create = graph._create_op_internal

    def create_sealed(kind: str, *args: Any, **kwargs: Any) -> Any:
        operation = create(kind, *args, **kwargs)
        if kind not in _ROUNDED or operation.outputs[0].dtype != tf.float32:
            return operation
        bits = tf.bitcast(operation.outputs[0], tf.int32)
        return tf.bitcast(tf.bitwise.bitwise_xor(bits, zero), tf.float32).op

    graph._create_op_internal = create_sealed
    try:
        yield
    finally:
        del graph._create_op_internal
