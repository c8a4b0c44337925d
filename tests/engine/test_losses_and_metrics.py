"""Weights, structures, losses and metrics mean what they mean to Keras."""

import keras
import numpy as np
import tensorflow as tf

from gradloop.engine.loop import fit
from tests.engine.against_fit import assert_fits_alike
from tests.engine.nets import (
    BATCH_SIZE,
    NUM_BATCHES,
    build_dense,
    build_two_by_two,
    compile_arguments,
    make_config,
    make_state,
    two_by_two_arguments,
)


def test_sample_weights(arrays):
    weighted = tf.data.Dataset.from_tensor_slices(arrays).batch(BATCH_SIZE)

    def arguments():
        metrics = [keras.metrics.SparseCategoricalAccuracy(name="weighted")]
        return {**compile_arguments(), "weighted_metrics": metrics}

    _, history = assert_fits_alike(weighted, arguments=arguments, val_ds=weighted)
    assert history.history["accuracy"] != history.history["weighted"]


def test_class_weights(dataset):
    _, weighted = assert_fits_alike(dataset, class_weight={0: 1.0, 2: 5.0}, val_ds=dataset)
    plain = fit(make_state(), dataset, make_config())
    assert weighted.history["loss"] != plain.history["loss"]


def test_inputs_and_outputs_in_dicts(arrays):
    x, y, _ = arrays
    structure = ({"a": x, "b": x[:, :2]}, {"label": y, "value": x.sum(1, keepdims=True)})
    train_ds = tf.data.Dataset.from_tensor_slices(structure).batch(BATCH_SIZE)
    _, history = assert_fits_alike(
        train_ds, build=build_two_by_two, arguments=two_by_two_arguments, val_ds=train_ds
    )
    assert {"loss", "label_loss", "value_loss", "label_accuracy", "val_value_mae"} <= set(
        history.history
    )


def test_inputs_and_outputs_in_lists(arrays):
    x, y, weight = arrays

    def build():
        keras.utils.set_random_seed(1)
        inputs = [keras.Input((4,)), keras.Input((2,))]
        h = keras.layers.Dense(6)(keras.layers.Concatenate()(inputs))
        heads = [keras.layers.Dense(3, "softmax", name="p"), keras.layers.Dense(1, name="q")]
        return keras.Model(inputs, [head(h) for head in heads])

    def arguments():
        losses = ["sparse_categorical_crossentropy", "mse"]
        return {"optimizer": "rmsprop", "loss": losses, "loss_weights": [1.0, 0.5]}

    structure = ((x, x[:, :2]), (y, x.sum(1, keepdims=True)), (weight, weight[::-1].copy()))
    train_ds = tf.data.Dataset.from_tensor_slices(structure).batch(BATCH_SIZE)
    assert_fits_alike(train_ds, build=build, arguments=arguments)


def test_add_loss_and_regularizers(dataset):
    class Activity(keras.layers.Layer):
        def call(self, x):
            self.add_loss(0.1 * keras.ops.mean(keras.ops.square(x)))
            return x

    def build():
        keras.utils.set_random_seed(1)
        dense = keras.layers.Dense(3, "softmax", kernel_regularizer=keras.regularizers.L2(0.01))
        return keras.Sequential([keras.Input((4,)), Activity(), dense])

    state, history = assert_fits_alike(dataset, build=build, val_ds=dataset)
    assert len(state.model.losses) == 2
    plain = fit(make_state(build_dense), dataset, make_config())
    assert history.history["loss"][0] > plain.history["loss"][0] + 0.05


def test_losses_that_come_from_add_loss_alone(arrays):
    x = tf.data.Dataset.from_tensor_slices(arrays[0]).batch(BATCH_SIZE)

    class Autoencoder(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(4)

        def call(self, x):
            y = self.dense(x)
            self.add_loss(keras.ops.mean(keras.ops.square(x - y)))
            return y

    def build():
        keras.utils.set_random_seed(1)
        return keras.Sequential([keras.Input((4,)), Autoencoder()])

    _, history = assert_fits_alike(
        x, build=build, arguments=lambda: {"optimizer": "sgd"}, epochs=2, val_ds=x
    )
    assert history.history["loss"][1] < history.history["loss"][0]


class NumBatches(keras.metrics.Metric):
    """A custom metric that counts its updates."""

    def __init__(self):
        super().__init__(name="num_batches")
        self.count = self.add_variable(shape=(), initializer="zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.count.assign_add(1.0)

    def result(self):
        return self.count


def test_custom_metrics_and_metrics_that_are_no_scalars(arrays):
    x, y, _ = arrays
    one_hot = keras.utils.to_categorical(y, 3)
    train_ds = tf.data.Dataset.from_tensor_slices((x, one_hot)).batch(BATCH_SIZE)

    def arguments():
        metrics = [keras.metrics.F1Score(name="f1"), NumBatches()]
        return {"optimizer": "adam", "loss": "categorical_crossentropy", "metrics": metrics}

    _, history = assert_fits_alike(train_ds, arguments=arguments, val_ds=train_ds, epochs=2)
    assert np.shape(history.history["f1"]) == (2, 3)
    assert history.history["num_batches"] == [NUM_BATCHES, NUM_BATCHES]  # reset each epoch
    assert history.history["val_num_batches"] == [NUM_BATCHES, NUM_BATCHES]
