"""LossScaling: a step that a `LossScaleOptimizer` skips is skipped on all replicas, and counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from .gradient_analysis import Gradient
from .gradients import call_on_all, holds_on_all, is_finite

_NUM_SKIPPED, _NUM_IN_A_ROW = range(2)


class Skips(NamedTuple):
    """What the loss scale has skipped, on the host.

    Attributes:
      num_skipped: Steps of the run that made no update.
      num_in_a_row: Those of them since the last update.
      names: Paths of the variables whose gradients were not finite in the last one.
    """

    num_skipped: int
    num_in_a_row: int
    names: list[str]


class LossScaling:
    """The loss scale of an optimizer, whose update is made where the reduced gradients are finite.

    Keras looks at the gradients of the first replica, before they are reduced: an overflow on
    another replica reaches the weights, or, with several workers, one waits for the others for
    ever. A number that is not finite survives the sum over the replicas: here, all of them look at
    the sum, and so decide alike, without a further exchange. The scale is a power of two: the bits
    are those of gradients that are unscaled first.

    Context: cross-replica, inside the scope of the strategy; of `apply`: replica.

    Args:
      optimizer: Built.

    Attributes:
      counts: int64 `[2]`: steps skipped in the run, and those of them since the last update. It is
        saved.
      flags: int64, one a variable: 1 where the last step that was skipped had a gradient that is
        not finite.
      num_halvings: In which the initial scale becomes 1.
    """

    def __init__(self, optimizer: keras.optimizers.LossScaleOptimizer) -> None:
        self._optimizer = optimizer
        trained = optimizer._trainable_variables
        self._names = [variable.path for variable in trained]
        self._ids = [id(variable) for variable in trained]
        self.num_halvings = max(0, math.ceil(math.log2(optimizer.initial_scale)))
        self.counts = _zeros((2,), "skipped_steps")
        self.flags = _zeros((len(trained),), "not_finite")

    def apply(
        self,
        gradients: Sequence[Gradient],
        variables: Sequence[keras.Variable] | None = None,
        *,
        reduces: bool = True,
    ) -> None:
        """Updates the variables, or skips the step. It takes the place of Keras's `_tf_apply`.

        Args:
          gradients: Of the scaled loss on this replica.
          variables: One a gradient; None: all that the optimizer was built on.
          reduces: Whether to reduce the gradients here, so that the inner optimizer does not.
        """
        optimizer = self._optimizer
        variables = list(variables or optimizer._trainable_variables)
        values, updated = optimizer._filter_empty_gradients(gradients, variables)
        if reduces:
            pairs = optimizer._all_reduce_sum_gradients(zip(values, updated, strict=True))
            values = [gradient for gradient, _ in pairs]
        finite = tf.stack([is_finite(gradient) for gradient in values])
        if not reduces:
            finite = holds_on_all(finite)

        def make(*values: Any) -> None:
            optimizer._stateful_handle_finite_grads(list(values), updated)
            self.counts.assign(self.counts.value * tf.constant([1, 0], tf.int64))

        def skip() -> None:
            optimizer._stateful_handle_non_finite_grads()
            self.counts.assign_add(tf.ones([2], tf.int64))
            self._note(finite, updated)

        call_on_all(tf.reduce_all(finite), make, values, otherwise=skip)

    def _note(self, finite: tf.Tensor, updated: Sequence[keras.Variable]) -> None:
        flags = dict(zip(map(id, updated), tf.unstack(finite), strict=True))
        ordered = [flags.get(key, tf.constant(True)) for key in self._ids]
        self.flags.assign(tf.cast(tf.logical_not(tf.stack(ordered)), tf.int64))

    def logs(self) -> dict[str, tf.Tensor]:
        """Returns what is logged of it: scalars. Context: replica."""
        return {
            "loss_scale": self.scale(),
            "num_skipped_steps": self.counts.value[_NUM_SKIPPED],
        }

    def scale(self) -> tf.Tensor:
        """Returns the loss scale, as it is now: float32 scalar."""
        return tf.identity(self._optimizer.dynamic_scale.value)

    def num_skipped(self) -> tf.Tensor:
        """Returns how many steps of the run were skipped until now, int64 scalar."""
        return tf.convert_to_tensor(self.counts.value)[_NUM_SKIPPED]

    def clear(self) -> None:
        """Forgets all."""
        for variable in (self.counts, self.flags):
            variable.assign(tf.zeros_like(variable.value))

    def read(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns what `parse` takes, as it is now. The host does not wait for the device."""
        return tf.identity(self.counts.value), tf.identity(self.flags.value)

    def parse(self, values: tuple[tf.Tensor, tf.Tensor]) -> Skips:
        """Returns what `read` has returned, on the host."""
        num_skipped, num_in_a_row = values[0].numpy().tolist()
        flags = values[1].numpy().tolist()
        names = [name for name, flag in zip(self._names, flags, strict=True) if flag]
        return Skips(num_skipped, num_in_a_row, names)


def _zeros(shape: tuple[int, ...], name: str) -> keras.Variable:
    return keras.Variable("zeros", shape=shape, trainable=False, dtype="int64", name=name)
