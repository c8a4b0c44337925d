"""Models that are more than a list of layers train as in Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.engine.loop import fit
from gradloop.engine.state import TrainState
from tests.engine.against_fit import assert_fits_alike
from tests.engine.nets import Subclassed, make_config, make_state, mirrored


class WithOwnLoss(Subclassed):
    """Overrides `compute_loss`, without `training` among its arguments."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return 2.0 * super().compute_loss(x, y, y_pred, sample_weight)


class WithOwnMetrics(Subclassed):
    """Overrides `compute_metrics`, and adds a metric that it updates itself."""

    def __init__(self):
        super().__init__()
        self.confidence = keras.metrics.Mean(name="confidence")

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self.confidence.update_state(keras.ops.max(y_pred, axis=-1))
        return super().compute_metrics(x, y, y_pred, sample_weight)


class WithMetricsProperty(Subclassed):
    """Overrides `metrics`: its own metric stands before Keras's loss tracker."""

    def __init__(self):
        super().__init__()
        self.entropy = keras.metrics.Mean(name="entropy")

    @property
    def metrics(self):
        return [self.entropy, *(m for m in super().metrics if m is not self.entropy)]

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self.entropy.update_state(-keras.ops.sum(y_pred * keras.ops.log(y_pred), axis=-1))
        return super().compute_metrics(x, y, y_pred, sample_weight)


@pytest.mark.parametrize(
    "model_class", [Subclassed, WithOwnLoss, WithOwnMetrics, WithMetricsProperty]
)
def test_subclassed_models(dataset, model_class):
    def build():
        keras.utils.set_random_seed(1)
        return model_class()

    _, history = assert_fits_alike(dataset, build=build, val_ds=dataset, epochs=2)
    assert all(loss > 0 for loss in history.history["loss"])


def test_unbuilt_model_under_replicas(dataset):
    def build():
        keras.utils.set_random_seed(1)
        return Subclassed()

    assert_fits_alike(dataset, build=build, strategy=mirrored(), val_ds=dataset)


@pytest.mark.parametrize(("method", "name"), [("train_step", "mine"), ("test_step", "val_mine")])
def test_own_step_of_a_keras_model_is_used(dataset, method, name):
    model_class = type("WithStep", (Subclassed,), {method: lambda self, data: {"mine": 1.0}})
    history = fit(make_state(model_class), dataset, make_config(), validation_data=dataset)
    assert history.history[name] == [1.0]


def test_own_step_that_is_passed_takes_the_place_of_the_keras_model_s(dataset):
    class WithTrainStep(Subclassed):
        def train_step(self, data):
            return {"keras": tf.constant(0.0)}

    history = fit(
        make_state(WithTrainStep), dataset, make_config(),
        train_step=lambda state, batch: {"mine": tf.constant(1.0)},
    )  # fmt: skip
    assert history.history == {"mine": [1.0]}


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_a_stateful_rnn_has_the_batch_size_of_a_replica(num_replicas):
    def make(kind):
        keras.utils.set_random_seed(1)
        layers = [keras.Input(batch_shape=(8 // num_replicas, 3, 2))]
        layers += [keras.layers.LSTM(4, stateful=True), keras.layers.Dense(1)]
        model = keras.Sequential(layers)
        return kind(model)

    def compiled(model):
        model.compile("sgd", "mse")
        return model

    x = np.random.default_rng(0).normal(size=(32, 3, 2)).astype("float32")
    dataset = tf.data.Dataset.from_tensor_slices((x, x[:, 0, :1])).batch(8, drop_remainder=True)
    with (mirrored() if num_replicas == 2 else tf.distribute.get_strategy()).scope():
        model, state = make(compiled), make(lambda model: TrainState(model, "sgd", loss="mse"))
    wanted = model.fit(dataset, epochs=2, verbose=0, shuffle=False).history
    assert fit(state, dataset, make_config(epochs=2)).history == wanted
    for a, b in zip(state.model.variables, model.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert sum("rnn_state" in name for name, _ in state.named_variables()) == 2  # saved, too
