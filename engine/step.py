"""One batch on one replica: what the engine does unless a person brings their own step.

In the way of a batch: `step_function` calls a step once, while it traces, in the replica context of
the strategy. A step is short and plain; copy it to change it (docs/custom_steps.md).
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from .protocols import Batch, Logs
from .state import TrainState


def train_step(state: TrainState, batch: Batch) -> Logs:
    """Performs one optimizer update on one replica.

    Context: replica, inside `strategy.run`. A model that overrides `train_step` does its own.

    Args:
      state: Owner of every variable that the step reads or writes.
      batch: `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`; the leading dimension is
        `per_replica_batch_size`.

    Returns:
      Metric name to scalar of shape `[]`, on the device.

    Raises:
      ValueError: If the loss depends on none of the trainable variables. Where there are none, a
        warning says so, and only what layers update themselves changes, as in fit.

    Example:
      >>> def noisy_step(state, batch):
      ...     x, y = batch
      ...     noise = tf.random.stateless_normal(tf.shape(x), seed=state.seed())
      ...     return engine.train_step(state, (x + noise, y))
      >>> history = engine.fit(state, train_ds, config, train_step=noisy_step)
    """
    if state.has_own("train_step"):
        return state.logs_as_in_fit(state.model.train_step(batch))
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    with tf.GradientTape() as tape:
        y_pred = state.call_model(x, training=True)
        loss = state.compute_loss(x, y, y_pred, sample_weight)
        scaled_loss = state.scale_loss(loss)
    state.apply_gradients(tape.gradient(scaled_loss, state.model.trainable_variables))
    return state.update_metrics(loss, x, y, y_pred, sample_weight)


def eval_step(state: TrainState, batch: Batch) -> Logs:
    """Adds one batch to the loss and the metrics; trains nothing.

    Context: replica, inside `strategy.run`. A model that overrides `test_step` does its own.

    Args:
      state: As in `train_step`.
      batch: As in `train_step`.

    Returns:
      Metric name to scalar of shape `[]`, on the device.

    Example:
      >>> def half_step(state, batch):
      ...     x, y = batch
      ...     return engine.eval_step(state, (x / 2, y))
      >>> logs = engine.evaluate(state, train_ds, config, eval_step=half_step)
    """
    if state.has_own("test_step"):
        return state.logs_as_in_fit(state.model.test_step(batch))
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    y_pred = state.call_model(x, training=False)
    loss = state.compute_loss(x, y, y_pred, sample_weight, training=False)
    return state.update_metrics(loss, x, y, y_pred, sample_weight)


def predict_step(state: TrainState, batch: Batch) -> Any:
    """Returns what the `predict_step` of the model does, which ignores targets and weights.

    Context: replica, inside `strategy.run`.

    Args:
      state: As in `train_step`.
      batch: As in `train_step`.

    Returns:
      The output, or the structure of outputs; the leading dimension is `per_replica_batch_size`.

    Example:
      >>> engine.predict_step(state, next(iter(train_ds))).shape
      TensorShape([8, 1])
    """
    return state.model.predict_step(batch)
