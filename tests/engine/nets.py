"""Small nets for the tests of the engine, their states, and what fit makes of the same nets."""

import keras
import tensorflow as tf

from gradloop.data import pipeline
from gradloop.engine.config import TrainConfig
from gradloop.engine.state import TrainState
from gradloop.engine.strategy import make_strategy

NUM_EXAMPLES = 26
BATCH_SIZE = 4
NUM_BATCHES = 7  # the last one has 2 examples


def make_config(**fields):
    return TrainConfig(**{"epochs": 1, "steps_per_execution": 3, **fields})


def build_model():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def build_dense():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])


def compile_arguments():
    return {
        "optimizer": keras.optimizers.SGD(0.1, momentum=0.9),
        "loss": keras.losses.SparseCategoricalCrossentropy(),
        "metrics": [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    }


def build_two_by_two():
    """Dicts of two inputs and two outputs."""
    keras.utils.set_random_seed(1)
    inputs = {"a": keras.Input((4,), name="a"), "b": keras.Input((2,), name="b")}
    h = keras.layers.Concatenate()([inputs["a"], inputs["b"]])
    h = keras.layers.Dense(6, activation="tanh")(h)
    outputs = {
        "label": keras.layers.Dense(3, activation="softmax", name="label")(h),
        "value": keras.layers.Dense(1, name="value")(h),
    }
    return keras.Model(inputs, outputs)


def two_by_two_arguments():
    return {
        "optimizer": keras.optimizers.SGD(0.05, momentum=0.9),
        "loss": {"label": "sparse_categorical_crossentropy", "value": "mse"},
        "loss_weights": {"label": 0.3, "value": 2.0},
        "metrics": {"label": ["accuracy"], "value": ["mae"]},
    }


class Subclassed(keras.Model):
    """Not built until it is called; its `call` knows no `training`."""

    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(8, activation="relu")
        self.dropout = keras.layers.Dropout(0.3)
        self.head = keras.layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.head(self.dropout(self.hidden(x)))


def make_state(build=build_model, arguments=compile_arguments, strategy=None):
    with (strategy or tf.distribute.get_strategy()).scope():
        return TrainState(build(), **arguments())


def make_compiled(build=build_model, arguments=compile_arguments, strategy=None):
    with (strategy or tf.distribute.get_strategy()).scope():
        model = build()
        model.compile(**arguments())
    return model


def make_tiny():
    """One layer, no metric, no dropout."""
    return TrainState(build_dense(), "sgd", loss="sparse_categorical_crossentropy")


def make_pipeline(arrays, **options):
    """Starts at any (epoch, step); each epoch has its own order."""
    x, y = arrays[:2]
    return pipeline.make_dataset(
        x, y, **{"global_batch_size": BATCH_SIZE, "shuffle": True} | options
    )


def mirrored(num_replicas=2):
    return make_strategy(TrainConfig(strategy="mirrored", num_replicas=num_replicas))


def num_updates(state):
    return int(state.optimizer.iterations.numpy())
