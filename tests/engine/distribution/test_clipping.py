"""Gradients are clipped after they are summed over the replicas: one replica is the oracle."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from tests.engine import nets

CLIPPINGS = {
    "clipnorm": {"clipnorm": 0.05},
    "global_clipnorm": {"global_clipnorm": 0.1},
    "clipvalue": {"clipvalue": 0.01},
}
BATCH_SIZE = 12  # divides among 2 and 3 replicas


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5 * BATCH_SIZE, 4)).astype("float32")
    # The examples of each replica pull elsewhere.
    y = np.arange(len(x)) % BATCH_SIZE * 3 // BATCH_SIZE
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH_SIZE)


def arguments(make_optimizer):
    return {"optimizer": make_optimizer(), "loss": "sparse_categorical_crossentropy"}


def strategy_of(num_replicas):
    # Of two sizes in one process: the collectives of the second one would fail.
    devices = [f"CPU:{index}" for index in range(num_replicas)]
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)


def train(data, make_optimizer, num_replicas, *, build=nets.build_dense, **fields):
    strategy = strategy_of(num_replicas) if num_replicas > 1 else None
    make = functools.partial(arguments, make_optimizer)
    state = nets.make_state(build, make, strategy)
    engine.fit(state, data, nets.make_config(**fields))
    return state.model.get_weights()


def train_with_fit(data, make_optimizer, num_replicas):
    make = functools.partial(arguments, make_optimizer)
    model = nets.make_compiled(nets.build_dense, make, strategy_of(num_replicas))
    model.fit(data, verbose=0, shuffle=False)
    return model.get_weights()


def difference(ours, theirs, build=nets.build_dense):
    """The largest relative difference in how far an array of weights has moved."""
    before = build().get_weights()
    trios = zip(ours, theirs, before, strict=True)
    return max(np.abs(a - b).max() / np.abs(b - start).max() for a, b, start in trios)


CASES = [("clipnorm", 2), ("clipvalue", 2), ("global_clipnorm", 2), ("global_clipnorm", 3)]


@pytest.mark.parametrize(("name", "num_replicas"), CASES)
def test_replicas_clip_as_one_does(name, num_replicas, data):
    def make():
        return keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.01, **CLIPPINGS[name])

    expected = train(data, make, 1)
    ours, theirs = (
        difference(train(data, make, num_replicas), expected),
        difference(train_with_fit(data, make, num_replicas), expected),
    )

    assert ours < 1e-6
    assert theirs > 0.4  # fit's fault


@pytest.mark.parametrize("fields", [{"clip": "replica"}, {"parity": "fit"}], ids=str)
def test_clip_of_each_replica_is_that_of_fit(fields, data):
    def make():
        return keras.optimizers.Adam(0.01, global_clipnorm=0.1)

    ours, theirs = train(data, make, 2, **fields), train_with_fit(data, make, 2)
    for weight, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(weight, other)


def scaled():
    inner = keras.optimizers.SGD(0.1, clipnorm=0.05)
    return keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0)


def averaged():
    return keras.optimizers.SGD(
        0.1, clipvalue=0.01, use_ema=True, ema_momentum=0.5, loss_scale_factor=4.0
    )


def in_parts():
    parts = {".*kernel": keras.optimizers.SGD(0.1, global_clipnorm=0.05)}
    rest = keras.optimizers.SGD(0.2, clipvalue=0.01)
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(rest, parts))


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (scaled, {"gradient_accumulation_steps": 2}),
        (averaged, {}),
        (averaged, {"run_eagerly": True}),
        (in_parts, {}),
    ],
    ids=["scaled, accumulated", "averaged", "eagerly", "of several optimizers"],
)
def test_clipping_of_other_optimizers(make, fields, data):
    expected = train(data, make, 1, **fields)
    assert difference(train(data, make, 2, **fields), expected) < 1e-6
    assert difference(train(data, make, 2, clip="replica", **fields), expected) > 0.1


def build_table():
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Embedding(7, 4), keras.layers.Dense(3, activation="softmax")]
    return keras.Sequential([keras.Input(()), *layers])


def test_clipping_of_sparse_gradients(data):
    """Rows of several replicas follow one another, as those of one replica do."""

    def make():
        return keras.optimizers.SGD(0.1, global_clipnorm=0.05)

    def as_rows(x, y):
        return tf.cast(tf.abs(x[:, 0] * 3), tf.int32) % 7, y

    rows = data.map(as_rows)
    expected = train(rows, make, 1, build=build_table)
    ours = train(rows, make, 2, build=build_table)
    assert difference(ours, expected, build_table) < 1e-6
    theirs = train(rows, make, 2, build=build_table, parity="fit")
    assert difference(theirs, expected, build_table) > 0.1


@pytest.mark.parametrize("kind", ["clips gradients", "scales the loss"])
def test_an_optimizer_that_the_state_does_not_have_is_refused(kind, data):
    with strategy_of(2).scope():
        state = engine.TrainState(nets.build_dense(), "sgd", loss="mse")
        other = keras.optimizers.SGD(0.1, clipnorm=1.0 if kind == "clips gradients" else None)
        if kind == "scales the loss":
            other = keras.optimizers.LossScaleOptimizer(other)
        other.build(state.model.trainable_variables)

    def step(state, batch):
        state.minimize(lambda: state.mean(state.model(batch[0])), optimizer=other)

    message = rf"{other.name}, which {kind}, and the state does not have it: .*TrainState\(extras="
    with pytest.raises(ValueError, match=message):
        engine.fit(state, data, nets.make_config(), train_step=step)
