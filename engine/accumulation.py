"""Accumulation: one update for the gradients of several batches.

A Keras optimizer can accumulate too, but not under replicas, and its schedule and its moving
average then count batches. Here all of the optimizer runs once a window: iterations are updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from . import gradients as gradients_lib


class Accumulation:
    """The gradients of an optimizer, summed over the batches of a window.

    The mean over the window is weighted by examples: that of one batch with all of them. So it is
    of a loss that is a mean over examples; of a sum, it is the sum divided by the batches.
    Context: cross-replica, inside the scope of the strategy; of the methods: replica.

    Args:
      optimizer: Built.

    Attributes:
      variables: What a checkpoint within a window must have.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        self._optimizer = optimizer
        trained = optimizer._trainable_variables
        self._sums = {id(v): _zeros(v.shape, v.path, _sum_dtype(v.dtype)) for v in trained}
        self._num_examples = _zeros((), "num_examples", "float32")
        self._num_batches = _zeros((), "num_batches", "int32")
        self._updated: list[keras.Variable] = []  # those that have a gradient
        self.variables = [*self._sums.values(), self._num_examples, self._num_batches]

    def add_batch(
        self,
        gradients: Sequence[Any],
        variables: Sequence[keras.Variable],
        *,
        num_examples: Any,
        num_batches: int,
        guard: gradients_lib.Guard | None = None,
    ) -> None:
        """Adds the gradients of one batch, and updates the variables if the window is full.

        Args:
          gradients: Of the scaled loss on this replica; none is missing.
          variables: One a gradient, of those that the optimizer was built on.
          num_examples: What the batch weighs on this replica: the examples of its part; of batches
            whose gradients have the replica's share already, those of an even part. Scalar.
          num_batches: Of a window.
          guard: Leaves the window as it is where something is not finite; None: all is added.
        """
        self._updated = list(variables)

        def add(num_examples: Any, *gradients: Any) -> None:
            self._add(gradients, tf.cast(num_examples, tf.float32), num_batches)

        values = [num_examples, *gradients]
        if guard is None:
            add(*values)
        else:
            guard.protect(add)(guard.check(self._optimizer, gradients, variables), *values)

    def _add(self, gradients: Sequence[Any], weight: tf.Tensor, num_batches: int) -> None:
        for gradient, variable in zip(gradients, self._updated, strict=True):
            total = self._sums[id(variable)]
            dense = tf.cast(tf.convert_to_tensor(gradient), total.dtype)
            total.assign_add(dense * tf.cast(weight, total.dtype))
        self._num_examples.assign_add(weight)
        self._num_batches.assign_add(1)
        is_full = tf.greater_equal(self._num_batches.value, num_batches)
        gradients_lib.call_when(is_full, self._update)

    def finish(self) -> None:
        """Updates the variables with what a window holds that will not be full."""
        if self._updated:
            gradients_lib.call_when(tf.greater(self._num_batches.value, 0), self._update)

    def clear(self) -> None:
        """Empties the window. Context: replica or cross-replica."""
        for variable in self.variables:
            variable.assign(tf.zeros_like(variable.value))

    @property
    def is_open(self) -> bool:
        """Whether a window has begun. Context: cross-replica."""
        return bool(self._num_batches.numpy())

    def _update(self) -> None:
        count = tf.convert_to_tensor(self._num_examples.value)
        weight = tf.where(tf.equal(count, 0), 1.0, count)  # a replica may have got no example
        totals = [self._sums[id(variable)] for variable in self._updated]
        means = [total.value / tf.cast(weight, total.dtype) for total in totals]
        pairs = zip(means, self._updated, strict=True)
        gradients = [tf.cast(mean, variable.dtype) for mean, variable in pairs]
        gradients_lib.update(self._optimizer, gradients, self._updated)
        self.clear()


def _sum_dtype(dtype: str) -> str:
    return dtype if dtype == "float64" else "float32"


def _zeros(shape: Any, path: str, dtype: str) -> keras.Variable:
    # Each replica has its own, as of a metric.
    return keras.Variable(
        "zeros",
        shape=shape,
        dtype=dtype,
        trainable=False,
        autocast=False,
        aggregation="sum",
        synchronization="on_read",
        name=path.replace("/", "_"),
    )
