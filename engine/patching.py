"""How the engine gives Keras other functions while a step is traced.

What calls them stays Keras's: a model's own `train_step` gets them too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.ops.resource_variable_ops import BaseResourceVariable


@contextlib.contextmanager
def patched(owner: Any, **attributes: Any) -> Iterator[None]:
    """Gives a module, a class or an object other attributes while the block runs.

    Args:
      owner: Gets back what it had.
      **attributes: By name.

    Example:
      >>> from gradloop.engine.patching import patched
      >>> optimizer = keras.optimizers.SGD()
      >>> with patched(optimizer, scale_loss=lambda loss: 3 * loss):
      ...     optimizer.scale_loss(2)
      6
    """
    before = {name: vars(owner)[name] for name in attributes if name in vars(owner)}
    _put(owner, attributes)
    try:
        yield
    finally:
        for name in attributes.keys() - before.keys():
            type.__delattr__(owner, name) if isinstance(owner, type) else vars(owner).pop(name)
        _put(owner, before)


def adding_in_place() -> contextlib.AbstractContextManager[None]:
    """Lets `keras.Variable.assign_add` be one operation of TensorFlow while a step is traced.

    Keras reads, adds and assigns: three operations for each number that a metric or an optimizer
    counts, a tenth of the operations of a small net's step. The sum is the same.

    Context: one replica.
    """
    by_keras = keras.Variable.assign_add

    def assign_add(self: keras.Variable, value: Any) -> Any:
        variable = self.value
        # Of an autocast or a stateless scope, it is no variable; under replicas, not a single one.
        if tf.executing_eagerly() or not isinstance(variable, tf.Variable):
            return by_keras(self, value)
        value = keras.ops.convert_to_tensor(value, variable.dtype if type(value) is int else None)
        if (value.dtype, value.shape) != (variable.dtype, variable.shape):
            return by_keras(self, value)
        return tf.convert_to_tensor(variable.assign_add(value))

    return patched(keras.Variable, assign_add=assign_add)


def reading_once() -> contextlib.AbstractContextManager[None]:
    """Lets an optimizer read a variable once, until something may write it, while it is traced.

    Keras's optimizers read the learning rate for each variable, and a slot again that they have
    just assigned: with what TensorFlow adds to hand them over, a tenth of the operations of a small
    net's step. What an assignment has written is what a read would give.

    Context: one replica.
    """
    by_keras = keras.optimizers.Optimizer.apply

    def apply(self: Any, *args: Any, **kwargs: Any) -> Any:
        if tf.executing_eagerly():
            return by_keras(self, *args, **kwargs)
        with _remembering_values():
            return by_keras(self, *args, **kwargs)

    return patched(keras.optimizers.Optimizer, apply=apply)


@contextlib.contextmanager
def _remembering_values() -> Iterator[None]:
    """Lets the current graph have a variable's value from its last read or assignment."""
    graph: Any = tf.compat.v1.get_default_graph()
    create, by_tensorflow = graph._create_op_internal, BaseResourceVariable._read_variable_op
    known: dict[int, tf.Tensor] = {}

    def create_op(kind: str, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        operation = create(kind, inputs, *args, **kwargs)
        handles = [id(one) for one in inputs if one.dtype == tf.resource]
        for handle in handles:  # whatever it is, a call of a function too, it may write
            known.pop(handle, None)
        if kind == "AssignVariableOp":
            known[handles[0]] = operation.inputs[1]
        elif kind == "ReadVariableOp":
            known[handles[0]] = operation.outputs[0]
        return operation

    def read(self: Any, *args: Any, **kwargs: Any) -> tf.Tensor:
        is_here = tf.compat.v1.get_default_graph() is graph
        value = known.get(id(graph.capture(self.handle))) if is_here else None
        is_whole = value is not None and value.shape.is_fully_defined()
        return value if is_whole else by_tensorflow(self, *args, **kwargs)

    graph._create_op_internal = create_op
    try:
        with patched(BaseResourceVariable, _read_variable_op=read):
            yield
    finally:
        graph._create_op_internal = create


# What they return has no -0.0.
_NEVER_NEGATIVE = ("Softmax", "Sigmoid", "OneHot")


def comparing_plainly() -> contextlib.AbstractContextManager[None]:
    """Lets `argmax` leave out Keras's care for -0.0 where there is none, while a step is traced.

    For Keras, 0.0 is more than -0.0. To TensorFlow, they are equal, so that Keras puts another
    number in its place: six operations on what a softmax returns, which has none.

    Context: one replica.
    """
    by_keras = keras.src.backend.numpy.argmax

    def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
        is_plain = tf.is_tensor(x) and not tf.executing_eagerly() and x.op.type in _NEVER_NEGATIVE
        if not is_plain or axis is None or keepdims:
            return by_keras(x, axis=axis, keepdims=keepdims)
        return tf.argmax(x, axis=axis, output_type=tf.int32)

    return patched(keras.src.backend.numpy, argmax=argmax)


def _put(owner: Any, attributes: dict[str, Any]) -> None:
    if isinstance(owner, type):
        for name, value in attributes.items():
            setattr(owner, name, value)
    else:
        vars(owner).update(attributes)  # Not by setattr: Keras tracks attributes, to save them.
