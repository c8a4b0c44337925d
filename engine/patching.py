"""How the engine gives Keras other functions while a step is traced.

What calls them stays Keras's: a model's own `train_step` gets them too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf


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


def _put(owner: Any, attributes: dict[str, Any]) -> None:
    if isinstance(owner, type):
        for name, value in attributes.items():
            setattr(owner, name, value)
    else:
        vars(owner).update(attributes)  # Not by setattr: Keras tracks attributes, to save them.
