"""Each rung of the ladder does what it says."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks.arms.constant_data import ConstantDataset
from benchmarks.race import rungs
from gradloop import engine
from gradloop.data import synthetic
from gradloop.models import registry


@pytest.fixture
def arrays():
    (x, y), _ = synthetic.load_data(num_train=40, num_test=1)
    return x, y, 10


@pytest.fixture
def batch(arrays):
    x, y, num_classes = arrays
    return tf.constant(x[:8, ..., None] / np.float32(255)), tf.one_hot(y[:8], num_classes)


@pytest.fixture
def state(arrays):
    return rungs.make_state(registry.get("dense"), arrays)


def run_steps(step, state, batch, num_steps):
    resident = ConstantDataset(batch).resident
    state.build(resident.element_spec)
    function = engine.make_train_function(step, state, state.strategy, engine.TrainConfig())
    function(resident, tf.constant(num_steps))


@pytest.mark.filterwarnings("ignore:(Forward|Backward) uses trainable")
def test_forward_computes_the_loss_of_each_step_and_trains_nothing(state, batch):
    forward, before = rungs.Forward(), state.weights_sha256()
    loss = float(state.compute_loss(batch[0], batch[1], state.model(batch[0])))
    run_steps(forward, state, batch, 3)
    assert float(forward.sum) == pytest.approx(3 * loss, rel=1e-5)
    assert state.weights_sha256() == before


@pytest.mark.filterwarnings("ignore:(Forward|Backward) uses trainable")
def test_backward_computes_every_gradient_and_trains_nothing(state, batch):
    backward, before = rungs.Backward(state.model), state.weights_sha256()
    run_steps(backward, state, batch, 2)
    with tf.GradientTape() as tape:
        loss = state.compute_loss(batch[0], batch[1], state.model(batch[0], training=True))
    expected = tape.gradient(loss, state.model.trainable_variables)
    for sink, gradient in zip(backward.sinks, expected, strict=True):
        np.testing.assert_allclose(sink, gradient, rtol=1e-4, atol=1e-6)
        assert np.any(gradient)
    assert state.weights_sha256() == before


def test_update_gives_the_weights_of_the_default_step(arrays, batch):
    digests = set()
    for step in (rungs.update, engine.train_step):
        keras.utils.set_random_seed(0)
        state = rungs.make_state(registry.get("dense"), arrays)
        run_steps(step, state, batch, 5)
        digests.add(state.weights_sha256())
    assert len(digests) == 1
