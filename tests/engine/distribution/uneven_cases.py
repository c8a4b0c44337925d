"""Trainings whose last batch is uneven, and what they are on one replica and on several."""

import keras
import numpy as np
import tensorflow as tf

from gradloop import engine
from tests.engine.nets import mirrored

layers = keras.layers
BATCH_SIZE = 15


def cross_entropy(**options):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **options)


class AddsLoss(layers.Layer):
    def call(self, x):
        self.add_loss(0.3 * tf.reduce_mean(tf.square(x)))
        return x


class OwnStep(keras.Model):
    """Its `train_step` knows nothing of the engine; of no example, its gradients would be NaN."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = layers.Dense(8, "tanh"), layers.Dense(3)

    def call(self, x):
        return self.head(self.hidden(x))

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return self.compute_metrics(x, y, self(x))


def dense(**options):
    hidden = layers.Dense(8, "tanh", **options)
    return keras.Sequential([keras.Input((4,)), hidden, layers.Dense(3)])


def convolutional():
    """Convolutions one after another fail on no row, and so does the gradient of pooling."""
    inner = [layers.Conv2D(2, 2), layers.Conv2D(3, 3, activation="relu"), layers.MaxPool2D()]
    return keras.Sequential([keras.Input((6, 6, 1)), *inner, layers.Flatten(), layers.Dense(3)])


def normalized(**options):
    norm = layers.BatchNormalization(**options)
    inner = [layers.Dense(8, use_bias=False), norm, layers.ReLU()]  # its bias has no gradient
    return keras.Sequential([keras.Input((4,)), *inner, layers.Dense(3)])


def recurrent():
    inner = [layers.Embedding(7, 4, mask_zero=True), layers.LSTM(4, return_sequences=True)]
    return keras.Sequential([keras.Input((5,), dtype="int32"), *inner, layers.Dense(3)])


def masked():
    """A row of zeros has no step that is masked."""
    return keras.Sequential([keras.Input((5, 4)), layers.Masking(-1.0), layers.Dense(3)])


def two_outputs():
    x = keras.Input((4,))
    hidden = layers.Dense(8, "tanh")(x)
    return keras.Model(x, {name: layers.Dense(3, name=name)(hidden) for name in ("a", "b")})


def make_data(kind, num_examples):
    rng = np.random.default_rng(num_examples)
    x = rng.normal(size=(num_examples, 4)).astype("float32")
    y = rng.integers(0, 3, num_examples)
    if kind == "images":
        return rng.normal(size=(num_examples, 6, 6, 1)).astype("float32"), y
    if kind == "sequences":
        lengths = rng.integers(1, 6, (num_examples, 1))
        words = np.where(np.arange(5) < lengths, rng.integers(1, 7, (num_examples, 5)), 0)
        return words.astype("int32"), rng.integers(0, 3, (num_examples, 5))
    if kind == "steps":
        is_there = rng.integers(0, 2, (num_examples, 5, 1)) > 0
        steps = rng.normal(size=(num_examples, 5, 4))
        return np.where(is_there, steps, -1.0).astype("float32"), rng.integers(
            0, 3, (num_examples, 5)
        )
    if kind == "weights":
        return x, y, rng.uniform(0.1, 2.0, num_examples).astype("float32")
    return (x, {"a": y, "b": y}) if kind == "outputs" else (x, y)


def scalar(y, y_pred):
    """A person's own loss, of which Keras does not see that it is a mean."""
    losses = keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)
    return tf.reduce_mean(losses)


def of_losses(y, y_pred):
    """One that calls Keras's, which Keras has scaled."""
    return cross_entropy()(y, y_pred) + 0.5 * scalar(y, y_pred)


class OfLosses(keras.losses.Loss):
    def call(self, y, y_pred):
        return of_losses(y, y_pred)


def mean_step(state, batch):
    x, y = batch

    def loss():
        losses = keras.losses.sparse_categorical_crossentropy(y, state.model(x), from_logits=True)
        return state.mean(losses), losses

    _, losses = state.minimize(loss)
    return {"mean": tf.reduce_mean(losses), "last": engine.last(tf.reduce_mean(losses))}


def two_batches(state, iterator):
    logs = [engine.train_step(state, next(iterator)) for _ in range(2)]
    return logs[-1]


# Name to: the net, the data, arguments of TrainState, of TrainConfig, of fit.
CASES = {
    "dense": (dense, "", {}, {}, {}),
    "convolutions": (convolutional, "images", {}, {}, {}),
    "synchronized": (lambda: normalized(synchronized=True), "", {}, {}, {}),
    "sum": (dense, "", {"loss": lambda: cross_entropy(reduction="sum")}, {}, {}),
    "unreduced": (dense, "", {"loss": lambda: cross_entropy(reduction=None)}, {}, {}),
    "scalar": (dense, "", {"loss": lambda: scalar}, {}, {}),
    "scalar of losses": (dense, "", {"loss": OfLosses}, {}, {}),
    "scalars of outputs": (two_outputs, "outputs", {"loss": lambda: scalar}, {}, {}),
    "regularizer": (lambda: dense(kernel_regularizer="l2"), "", {}, {}, {}),
    "sample weights": (dense, "weights", {}, {}, {}),
    "mean by weight": (
        dense, "weights",
        {"loss": lambda: cross_entropy(reduction="mean_with_sample_weight")}, {}, {},
    ),
    "class weights": (dense, "", {}, {}, {"class_weight": {0: 0.3, 1: 2.0, 2: 1.0}}),
    "mean by mask": (
        masked, "steps",
        {"loss": lambda: cross_entropy(reduction="mean_with_sample_weight")}, {}, {},
    ),
    "masks": (recurrent, "sequences", {}, {}, {}),
    "add_loss": (lambda: keras.Sequential([dense(), AddsLoss()]), "", {}, {}, {}),
    "two outputs": (two_outputs, "outputs", {}, {}, {}),
    "own train_step": (OwnStep, "", {}, {}, {}),
    "state.mean": (dense, "", {}, {}, {"train_step": mean_step}),
    "accumulation": (dense, "", {}, {"gradient_accumulation_steps": 3}, {}),
    "eager": (dense, "", {}, {"run_eagerly": True}, {}),
    "two batches a step": (dense, "", {}, {}, {"train_step": two_batches}),
}  # fmt: skip


def make_state(name, strategy):
    build, kind, arguments, _, _ = CASES[name]
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(1)
    rate = 0.005 if name in ("sum", "unreduced") else 0.05
    metrics = None if kind == "outputs" else ["accuracy"]
    with strategy.scope():
        return engine.TrainState(
            build(), keras.optimizers.SGD(rate, momentum=0.9),
            loss=arguments.get("loss", cross_entropy)(), metrics=metrics,
        )  # fmt: skip


def train(name, num_replicas, num_examples, **fields):
    """Returns the weights and the history."""
    kind, config, options = CASES[name][1], CASES[name][3], CASES[name][4]
    strategy = mirrored(num_replicas) if num_replicas > 1 else tf.distribute.get_strategy()
    state = make_state(name, strategy)
    dataset = tf.data.Dataset.from_tensor_slices(make_data(kind, num_examples)).batch(BATCH_SIZE)
    config = engine.TrainConfig(**{"epochs": 2, "steps_per_execution": 3} | config | fields)
    history = engine.fit(state, dataset, config, validation_data=dataset, **options)
    return [variable.numpy() for variable in state.model.variables], history.history


def difference(found, wanted):
    """Returns the largest difference of a variable, relative to its largest entry."""
    pairs = zip(found, wanted, strict=True)
    return max(float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in pairs)
