"""The default steps, called on one batch."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.engine.state import TrainState
from gradloop.engine.step import eval_step, predict_step, train_step

X = tf.constant([[1.0, 2.0], [3.0, -1.0]])
Y = tf.constant([[1.0], [0.0]])


def make_state(optimizer=None, **arguments):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    arguments = {"loss": "mse", "metrics": ["mae"], **arguments}
    state = TrainState(model, optimizer or keras.optimizers.SGD(0.1), **arguments)
    state.build((tf.TensorSpec((None, 2)), tf.TensorSpec((None, 1))))
    return state


def test_train_step_is_gradient_descent():
    state = make_state()
    kernel = state.model.layers[0].kernel.numpy().astype("float64")
    x, y = X.numpy().astype("float64"), Y.numpy()
    error = x @ kernel - y
    logs = train_step(state, (X, Y))
    expected = kernel - 0.1 * 2 * x.T @ error / len(x)
    np.testing.assert_allclose(state.model.layers[0].kernel.numpy(), expected, rtol=1e-6)
    assert logs.keys() == {"loss", "mae"}
    np.testing.assert_allclose(logs["loss"], np.mean(error**2), rtol=1e-6)
    np.testing.assert_allclose(logs["mae"], np.mean(abs(error)), rtol=1e-6)


def test_train_step_weighs_examples():
    state, other = make_state(), make_state()
    train_step(state, (X, Y, tf.constant([1.0, 0.0])))
    train_step(other, (X[:1], Y[:1]))
    change = state.model.layers[0].kernel - make_state().model.layers[0].kernel
    expected = other.model.layers[0].kernel - make_state().model.layers[0].kernel
    np.testing.assert_allclose(change, expected / 2, rtol=1e-6)  # half the mean: two examples


def test_eval_step_changes_metrics_alone():
    state = make_state()
    before = state.weights_sha256()
    logs = eval_step(state, (X, Y))
    assert float(logs["loss"]) > 0
    assert state.weights_sha256() == before
    assert int(state.optimizer.iterations) == 0


@pytest.mark.parametrize("batch", [X, (X,), (X, Y), (X, Y, tf.ones(2))])
def test_predict_step_ignores_targets(batch):
    state = make_state()
    before = state.weights_sha256()
    np.testing.assert_array_equal(predict_step(state, batch), state.model(X))
    assert state.weights_sha256() == before


@pytest.mark.parametrize(("step", "is_training"), [(train_step, True), (eval_step, False)])
def test_training_reaches_layers_and_loss(step, is_training):
    seen = []

    class Spy(keras.layers.Dense):
        def call(self, x, training=None):
            seen.append(training)
            return super().call(x)

    model = keras.Sequential([keras.Input((2,)), Spy(1)])
    state = TrainState(model, "sgd", loss="mse")
    seen.clear()
    step(state, (X, Y))
    assert seen == [is_training]


def test_frozen_model_is_said():
    state = make_state()
    state.model.trainable = False
    with pytest.warns(UserWarning, match="no trainable variables"):
        train_step(state, (X, Y))
