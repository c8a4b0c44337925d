"""NonfiniteRecord: which steps are left out because a gradient, or the loss, is not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

# The fields of the record; a flag for the loss and one for each variable follow.
_NUM_STEPS, _NUM_LEFT_OUT, _FIRST_STEP, _IS_CLOSED = range(4)
_NUM_FIELDS = 4


class LeftOut(NamedTuple):
    """What a record says, on the host.

    Attributes:
      num_steps: Steps since the record was cleared.
      num_left_out: Those of them that were left out.
      first_step: The first of these, counted from 1; 0: none.
      loss: Whether the loss of that step was not finite.
      names: Paths of the variables whose gradients were not finite in it.
    """

    num_steps: int
    num_left_out: int
    first_step: int
    loss: bool
    names: list[str]


class NonfiniteRecord:
    """What the graph knows of steps that are left out. It is read between executions.

    A step that is left out closes the record: until it is open again, no update is made.
    Context: cross-replica, inside the scope of the strategy; of the methods, where they say so.

    Args:
      variables: Whose gradients are told apart.
    """

    def __init__(self, variables: Sequence[keras.Variable]) -> None:
        self._names = [variable.path for variable in variables]
        self._ids = [id(variable) for variable in variables]
        # Of updates by an optimizer that the state does not have, too.
        shape = (_NUM_FIELDS + 1 + len(variables) + 1,)
        self.variable = keras.Variable(
            "zeros", shape=shape, trainable=False, dtype="int64", name="nonfinite"
        )

    def order(self, flags: Mapping[int, tf.Tensor], loss: tf.Tensor) -> tf.Tensor:
        """Returns flags in the order of the record, booleans of shape `[num_flags]`.

        Args:
          flags: `id` of a variable to whether its gradient is finite.
          loss: Whether the loss is.
        """
        others = [flag for key, flag in flags.items() if key not in self._ids]
        ordered = [flags.get(key, True) for key in self._ids]
        return tf.stack([loss, *ordered, tf.reduce_all(others) if others else True])

    def permits(self, finite: tf.Tensor) -> tf.Tensor:
        """Returns whether an update is made, boolean scalar. Context: replica.

        Args:
          finite: Flags that are alike on all replicas.
        """
        is_open = tf.equal(self.variable.value[_IS_CLOSED], 0)
        return tf.logical_and(is_open, tf.reduce_all(finite))

    def close(self, finite: tf.Tensor) -> None:
        """Notes that the step is left out; of later ones until `reopen`, nothing is noted."""
        old = tf.convert_to_tensor(self.variable.value)
        num_steps, num_left_out, first_step, is_closed = tf.unstack(old[:_NUM_FIELDS])
        flags = tf.cast(tf.logical_not(finite), tf.int64)
        is_first = tf.equal(first_step, 0)
        fields = [
            num_steps,
            num_left_out + 1,
            tf.where(is_first, num_steps + 1, first_step),
            tf.ones_like(is_closed),
        ]
        new = tf.concat([tf.stack(fields), tf.where(is_first, flags, old[_NUM_FIELDS:])], 0)
        self.variable.assign(tf.where(tf.equal(is_closed, 0), new, old))

    def is_closed(self) -> tf.Tensor:
        """Returns whether the step, or one before it, is left out: boolean scalar."""
        return tf.not_equal(self.variable.value[_IS_CLOSED], 0)

    def reopen(self) -> None:
        """Lets updates be made again."""
        self.variable.assign(self.variable.value * self._unit(_IS_CLOSED, on=0, off=1))

    def count_step(self) -> None:
        """Counts a step that has ended."""
        self.variable.assign_add(self._unit(_NUM_STEPS, on=1, off=0))

    def clear(self) -> None:
        """Forgets all."""
        self.variable.assign(tf.zeros_like(self.variable.value))

    def read(self) -> tf.Tensor:
        """Returns what `parse` takes, as it is now. The host does not wait for the device."""
        return tf.identity(self.variable.value)

    def parse(self, values: tf.Tensor) -> LeftOut:
        """Returns what `read` has returned, on the host."""
        array = np.asarray(values)
        loss, *flags = array[_NUM_FIELDS:].tolist()
        pairs = zip([*self._names, "another variable"], flags, strict=True)
        names = [name for name, flag in pairs if flag]
        num_steps, num_left_out, first_step = array[:_IS_CLOSED].tolist()
        return LeftOut(num_steps, num_left_out, first_step, bool(loss), names)

    def _unit(self, index: int, *, on: int, off: int) -> tf.Tensor:
        return tf.one_hot(index, self.variable.shape[0], on, off, dtype=tf.int64)
