"""Sums and maxima that mean the same on any number of replicas."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.losses import loss as keras_loss


def is_sum(variable: keras.Variable) -> bool:
    """Returns whether replicas keep parts of a sum in it, as metrics do."""
    return bool(variable.synchronization == "on_read" and variable.aggregation == "sum")


def sums_for_other_replicas(
    values: list[np.ndarray], num_saved: int, num_replicas: int
) -> list[np.ndarray]:
    """Returns parts of a sum for another number of replicas: all of it on the first one.

    Args:
      values: One a replica; a single one where all replicas had the same.
      num_saved: Replicas that they were saved of.
      num_replicas: That there are now, over all workers.
    """
    if num_saved == num_replicas:
        return values
    total = values[0] * num_saved if len(values) == 1 else sum(values[1:], values[0])
    total = np.asarray(total, values[0].dtype)
    return [total] + [np.zeros_like(total)] * (num_replicas - 1)


def as_sum(value: Any) -> tf.Tensor:
    """Returns a loss for `add_loss` that is a sum over the examples of a batch, and not a mean.

    Context: replica, in a layer or a model. Keras takes what is added for a mean over the batch,
    and divides it by the number of replicas: a sum gets as many times too small as there are
    replicas. One replica, and `keras.Model.fit`, get what they would get without this.

    Args:
      value: Scalar: the sum over this replica's part of the batch.

    Example:
      >>> class SumOfSquares(keras.layers.Layer):
      ...     def call(self, x):
      ...         self.add_loss(engine.as_sum(tf.reduce_sum(x**2)))
      ...         return x
      >>> layer = SumOfSquares()
      >>> outputs = layer(tf.ones([2, 3]))
      >>> float(layer.losses[0])
      6.0
    """
    value = tf.convert_to_tensor(value)
    weight = keras_loss.scale_loss_for_distribution(tf.ones([], value.dtype))
    return tf.math.divide_no_nan(value, weight)


class Largest(keras.metrics.Metric):  # type: ignore[misc]
    """The largest value since the metric was reset, over all replicas; 0 if there was none.

    TensorFlow adds what the metrics of the replicas hold: a metric that keeps a maximum in a scalar
    of its own would show the sum of the maxima. Here each replica has an entry of its own, and the
    sum over the replicas has all of them. Metrics that keep a maximum inherit this one.

    Args:
      name: Of the metric.

    Example:
      >>> class LargestError(engine.Largest):
      ...     def update_state(self, y_true, y_pred, sample_weight=None):
      ...         super().update_state(tf.abs(y_true - y_pred))
      >>> metric = LargestError(name="largest_error")
      >>> metric.update_state(tf.constant([1.0, 2.0]), tf.constant([4.0, 2.0]))
      >>> float(metric.result())
      3.0
    """

    def __init__(self, name: str = "largest") -> None:
        super().__init__(name=name)
        shape = [tf.distribute.get_strategy().num_replicas_in_sync]
        self._values = self.add_variable(shape, "zeros", name="values")
        self._seen = self.add_variable(shape, "zeros", name="seen")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Takes values of any shape. Context: replica; weights change nothing."""
        context: Any = tf.distribute.get_replica_context()
        replica = context.replica_id_in_sync_group if context else 0  # while Keras builds metrics
        is_mine = tf.equal(tf.range(self._values.shape[0]), tf.cast(replica, tf.int32))
        largest = tf.reduce_max(tf.cast(values, self._values.dtype))
        before = tf.convert_to_tensor(self._values)
        is_larger = (largest > before) | (tf.convert_to_tensor(self._seen) == 0)
        self._values.assign(tf.where(is_mine & is_larger, largest, before))
        self._seen.assign(tf.where(is_mine, 1.0, tf.convert_to_tensor(self._seen)))

    def result(self) -> tf.Tensor:
        """Returns the largest value, scalar."""
        values, is_seen = tf.convert_to_tensor(self._values), tf.convert_to_tensor(self._seen) > 0
        largest = tf.reduce_max(tf.where(is_seen, values, values.dtype.min))
        return tf.where(tf.reduce_any(is_seen), largest, 0.0)
