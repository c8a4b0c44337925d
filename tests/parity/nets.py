"""Small nets and data for the parity suite: each makes a fresh TrainState or a fresh dataset."""

import keras
import numpy as np
import tensorflow as tf

from gradloop import engine
from gradloop.models import registry

NUM_EXAMPLES = 100
BATCH_SIZE = 16  # 7 steps, the last of 4 examples
NUM_FEATURES = 12
NUM_CLASSES = 5


def arrays(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=(NUM_EXAMPLES, *shape)).astype("float32")


def labels(num_classes=NUM_CLASSES, seed=1):
    return np.random.default_rng(seed).integers(0, num_classes, NUM_EXAMPLES)


def batches(x, y, *more):
    return tf.data.Dataset.from_tensor_slices((x, y, *more)).batch(BATCH_SIZE)


def small_data(*, weighted=False):
    weights = [np.random.default_rng(2).uniform(0.1, 2, NUM_EXAMPLES).astype("float32")]
    return batches(arrays(NUM_FEATURES), labels(), *(weights if weighted else []))


def image_data():
    x = np.random.default_rng(0).uniform(size=(NUM_EXAMPLES, 28, 28, 1)).astype("float32")
    return batches(x, keras.utils.to_categorical(labels(10), 10).astype("float32"))


def two_in_two_out_data():
    inputs = {"left": arrays(6), "right": arrays(4, seed=3)}
    return batches(inputs, {"class": labels(), "value": arrays(1, seed=4)})


def small_net(optimizer=None, **compile_args):
    """Two dense layers; the optimizer's cases use it."""
    model = keras.Sequential(
        [
            keras.Input((NUM_FEATURES,)),
            keras.layers.Dense(8, activation="relu", name="hidden"),
            keras.layers.Dense(NUM_CLASSES, activation="softmax", dtype="float32", name="output"),
        ]
    )
    compile_args = {"metrics": ["accuracy"]} | compile_args
    return engine.TrainState(
        model,
        optimizer or keras.optimizers.Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        **compile_args,
    )


def registered_net(name):
    """One of the tutorial's models with its own recipe."""
    recipe = registry.get(name)
    return engine.TrainState(
        recipe.build(),
        recipe.make_optimizer(None),
        loss=recipe.make_loss(),
        metrics=recipe.make_metrics(),
    )


class ActivityPenalty(keras.layers.Layer):
    """Adds a loss that depends on the batch."""

    def call(self, x):
        # In float32: Keras cannot add losses of different dtypes.
        self.add_loss(0.01 * keras.ops.mean(keras.ops.square(keras.ops.cast(x, "float32"))))
        return x


def stateful_net():
    """BatchNorm, Dropout, L2 and add_loss together."""
    model = keras.Sequential(
        [
            keras.Input((NUM_FEATURES,)),
            keras.layers.Dense(16, kernel_regularizer=keras.regularizers.L2(0.01), name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Activation("relu"),
            ActivityPenalty(),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(NUM_CLASSES, activation="softmax", dtype="float32", name="output"),
        ]
    )
    return engine.TrainState(
        model,
        keras.optimizers.SGD(0.1, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
    )


def two_in_two_out_net():
    """Dicts of inputs and outputs, a loss, a loss weight and a metric each."""
    left, right = keras.Input((6,), name="left"), keras.Input((4,), name="right")
    hidden = keras.layers.Dense(8, activation="tanh")(keras.layers.Concatenate()([left, right]))
    outputs = {
        "class": keras.layers.Dense(NUM_CLASSES, activation="softmax", name="class")(hidden),
        "value": keras.layers.Dense(1, name="value")(hidden),
    }
    return engine.TrainState(
        keras.Model({"left": left, "right": right}, outputs),
        keras.optimizers.Adam(0.01),
        loss={"class": "sparse_categorical_crossentropy", "value": "mse"},
        loss_weights={"class": 1.0, "value": 0.3},
        metrics={"class": ["accuracy"], "value": ["mae"]},
    )
