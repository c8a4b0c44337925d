"""One batch on one replica: what the engine does when nobody brings a step of their own."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from engine.state import Batch, Logs, TrainState


def train_step(state: TrainState, batch: Batch) -> Logs:
    """Performs one optimizer update on one replica.

    Context: replica context, inside `strategy.run`.

    Args:
      state: Owner of every variable that the step reads or writes.
      batch: `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`; leading dimension
        `per_replica_batch_size`.

    Returns:
      Metric name to scalar of shape `[]`, still on the device.

    Raises:
      ValueError: If the model has no trainable variables.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    with tf.GradientTape() as tape:
        y_pred = state.call_model(x, training=True)
        loss = state.compute_loss(x, y, y_pred, sample_weight)
        scaled_loss = state.scale_loss(loss)
    state.apply_gradients(tape.gradient(scaled_loss, state.model.trainable_variables))
    return state.update_metrics(loss, x, y, y_pred, sample_weight)


def eval_step(state: TrainState, batch: Batch) -> Logs:
    """Adds one batch to the loss and the metrics; no variable of the model is trained.

    Context: replica context, inside `strategy.run`.

    Args:
      state: As in `train_step`.
      batch: As in `train_step`.

    Returns:
      Metric name to scalar of shape `[]`, still on the device.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    y_pred = state.call_model(x, training=False)
    loss = state.compute_loss(x, y, y_pred, sample_weight, training=False)
    return state.update_metrics(loss, x, y, y_pred, sample_weight)


def predict_step(state: TrainState, batch: Batch) -> Any:
    """Returns what the model gives for one batch; targets and weights are ignored.

    Context: replica context, inside `strategy.run`.

    Args:
      state: As in `train_step`.
      batch: As in `train_step`.

    Returns:
      The model's output or structure of outputs, leading dimension `per_replica_batch_size`.
    """
    x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
    return state.call_model(x, training=False)
