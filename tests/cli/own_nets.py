"""What a person may bring to the command line: models, steps, hooks, losses."""

import keras
import tensorflow as tf

from gradloop import engine


def build(input_shape, num_classes, units=8):
    """Not compiled; its outputs are logits."""
    return keras.Sequential([
        keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(units, name="hidden"),
        keras.layers.Dense(num_classes, name="head"),
    ])  # fmt: skip


def normalized(input_shape, num_classes):
    """Keeps statistics, which several replicas have each for itself."""
    return keras.Sequential([
        keras.Input(input_shape), keras.layers.BatchNormalization(), keras.layers.Flatten(),
        keras.layers.Dense(num_classes, activation="softmax"),
    ])  # fmt: skip


def compiled(num_classes):
    """Not built; takes class numbers."""
    outputs = keras.layers.Dense(num_classes, activation="softmax")
    model = keras.Sequential([keras.layers.Flatten(), outputs])
    model.compile(
        optimizer=keras.optimizers.SGD(0.25, momentum=0.5),
        loss=keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"],
    )  # fmt: skip
    return model


class Subclassed(keras.Model):
    """A model with a call of its own."""

    def __init__(self, num_classes):
        super().__init__()
        self.flatten = keras.layers.Flatten()
        self.outer = keras.layers.Dense(num_classes, activation="softmax")

    def call(self, x):
        return self.outer(self.flatten(x))


def yes_or_no(input_shape):
    """One output, the probability of the second of two classes."""
    return keras.Sequential([
        keras.Input(input_shape), keras.layers.Flatten(),
        keras.layers.Dense(1, activation="sigmoid"),
    ])  # fmt: skip


def number(input_shape):
    """One output, a number."""
    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(1)])


def broken():
    """Has a bug."""
    raise KeyError("a bug of mine")


def no_model():
    """Returns what is none."""
    return "a model"


def train_step(state, batch, scale=1.0):
    """The default step, with a factor."""
    x, y = batch

    def loss_fn():
        y_pred = state.call_model(x, training=True)
        return scale * state.compute_loss(x, y, y_pred), y_pred

    loss, y_pred = state.minimize(loss_fn)
    return state.update_metrics(loss, x, y, y_pred, None)


def my_loss(y_true, y_pred):
    """A loss as a function."""
    return tf.reduce_mean((y_true - y_pred) ** 2, axis=-1)


class Note(engine.Hook):
    """Writes a file when training ends."""

    def __init__(self, run_dir, text="noted"):
        self._path, self._text = f"{run_dir}/note.txt", text

    def on_train_end(self, info):
        """Writes it."""
        with open(self._path, "w") as file:
            file.write(f"{self._text} {info.progress.num_steps_completed}")


def callbacks(factor=0.5):
    """Two callbacks of Keras."""
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * factor)
    return [halve, keras.callbacks.TerminateOnNaN()]


def too_narrow(input_shape):
    """Five outputs, and a loss of its own choice."""
    model = keras.Sequential([
        keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(5),
    ])  # fmt: skip
    model.compile("sgd", "categorical_crossentropy")
    return model


def other_input():
    """Takes other images than those of the dataset."""
    return keras.Sequential(
        [keras.Input((9, 9, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )


def broken_metric(y_true, y_pred):
    """Has a bug of the kind that Keras raises for wrong shapes."""
    raise ValueError("a bug in my metric")
