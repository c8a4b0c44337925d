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


def train(data, make_optimizer, num_replicas, **fields):
    strategy = strategy_of(num_replicas) if num_replicas > 1 else None
    make = functools.partial(arguments, make_optimizer)
    state = nets.make_state(nets.build_dense, make, strategy)
    engine.fit(state, data, nets.make_config(**fields))
    return state.model.get_weights()


def train_with_fit(data, make_optimizer, num_replicas):
    make = functools.partial(arguments, make_optimizer)
    model = nets.make_compiled(nets.build_dense, make, strategy_of(num_replicas))
    model.fit(data, verbose=0, shuffle=False)
    return model.get_weights()


def difference(ours, theirs):
    """The largest relative difference in how far an array of weights has moved."""
    before = nets.build_dense().get_weights()
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
