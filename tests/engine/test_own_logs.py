"""Logs of a model's own methods that are not exactly those of its metrics, as in fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from tests.engine.nets import mirrored
from tests.engine.observers import StopAfter

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 4)).astype("float32")
Y = RNG.normal(size=(24, 1)).astype("float32")
CLASSES = np.eye(3, dtype="float32")[RNG.integers(0, 3, 24)]
CONFIG = engine.TrainConfig(global_batch_size=8, epochs=2)


class OwnSteps(keras.Sequential):
    """Logs a loss of its own, and keeps a metric that it does not log."""

    def __init__(self, layers):
        super().__init__(layers)
        self.seen = keras.metrics.Mean(name="seen")

    def _loss(self, data):
        x, y = data
        return tf.reduce_mean((self(x, training=True) - y) ** 2)

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = self._loss(data)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}

    def test_step(self, data):
        return {"loss": self._loss(data)}


class OwnMetrics(keras.Sequential):
    """Logs other things than the results of its metrics, arrays among them."""

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        logs = super().compute_metrics(x, y, y_pred, sample_weight)
        loss = keras.ops.mean((y_pred - y) ** 2)
        return {**logs, "loss": loss, "means": keras.ops.mean(y_pred, axis=0)}


def histories(kind, y, metrics=None, run_eagerly=False, strategy=None, **layer):
    """Returns those of fit and of the engine."""
    strategy = strategy or tf.distribute.get_strategy()
    for train in (
        lambda model: model.fit(
            X, y, batch_size=8, epochs=2, shuffle=False, validation_data=(X, y), verbose=0
        ),
        lambda model: engine.fit(
            engine.TrainState(model), X, CONFIG, y=y, shuffle=False, validation_data=(X, y)
        ),
    ):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            model = kind([keras.Input([4]), keras.layers.Dense(y.shape[1], **layer)])
            made = metrics and [make() for make in metrics]
            model.compile("sgd", "mse", metrics=made, run_eagerly=run_eagerly)
            history = train(model).history
        yield {name: np.array(values).tolist() for name, values in history.items()}


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("kind", [OwnSteps, OwnMetrics])
def test_a_value_under_the_name_of_a_metric_is_the_last_step_s(kind, run_eagerly):
    theirs, ours = histories(kind, Y, run_eagerly=run_eagerly)
    assert ours == theirs
    assert min(ours["loss"] + ours["val_loss"]) > 0


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_an_array_under_the_name_of_a_metric_is_logged(run_eagerly):
    f1 = lambda: keras.metrics.F1Score(average=None, name="f1")  # noqa: E731
    theirs, ours = histories(
        OwnMetrics, CLASSES, [f1], run_eagerly=run_eagerly, activation="softmax"
    )
    assert ours == theirs
    assert np.shape(ours["f1"]) == np.shape(ours["val_means"]) == (2, 3)


@pytest.mark.slow
def test_an_array_is_the_mean_over_replicas():
    theirs, ours = histories(OwnMetrics, CLASSES, strategy=mirrored(), activation="softmax")
    assert ours == theirs


@pytest.mark.filterwarnings("ignore:The dataset has no seek")
def test_a_run_that_goes_on_at_the_end_of_an_epoch_has_the_last_step_s_value():
    def train(*hooks, state=None, resume=False):
        if state is None:
            keras.utils.set_random_seed(0)
            model = OwnSteps([keras.Input([4]), keras.layers.Dense(1)])
            model.compile("sgd", "mse")
            state = engine.TrainState(model)
        history = engine.fit(state, X, CONFIG, y=Y, shuffle=False, hooks=hooks, resume=resume)
        return state, history.history

    whole = train()[1]
    state = train(StopAfter(3))[0]
    state.functions.clear()  # as in a new process
    assert train(state=state, resume=True)[1] == whole


def test_results_of_its_metrics_are_over_all_replicas_whatever_the_extras_have():
    class Own(keras.Sequential):
        def train_step(self, data):
            return super().train_step(data)

    found = []
    for names in ((), ("other",)):
        keras.utils.set_random_seed(0)
        with mirrored().scope():
            model = Own([keras.Input([4]), keras.layers.Dense(1, activation="sigmoid")])
            model.compile("sgd", "binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")])
            extras = {name: keras.metrics.Mean(name=name) for name in names}
            state = engine.TrainState(model, extras=extras)
        found.append(engine.fit(state, X, CONFIG, y=CLASSES[:, :1], shuffle=False).history)
    assert found[0] == found[1]


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_metric_that_its_first_update_leaves_as_it_was_is_over_the_epoch(run_eagerly):
    def step(state, batch):
        predicted, y = batch
        state.extras["precision"].update_state(y, predicted)
        return {"precision": state.extras["precision"].result()}

    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
    extras = {"precision": keras.metrics.Precision(name="precision")}
    state = engine.TrainState(model, "sgd", loss="mse", extras=extras)
    predicted = np.repeat([0.0, 1.0, 1.0], 8)[:, np.newaxis]  # of the first batch, none is positive
    config = engine.TrainConfig(global_batch_size=8, run_eagerly=run_eagerly)
    y = CLASSES[:, :1]
    history = engine.fit(state, predicted, config, y=y, shuffle=False, train_step=step).history
    assert history["precision"] == [pytest.approx(y[8:].mean())]
