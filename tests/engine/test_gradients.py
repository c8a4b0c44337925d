"""Loss scaling under replicas, and what apply_gradients refuses."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.engine import gradients as gradients_lib
from gradloop.engine.config import TrainConfig
from gradloop.engine.state import TrainState
from gradloop.engine.step import train_step
from gradloop.engine.step_function import make_train_function
from gradloop.engine.strategy import make_strategy

INITIAL_SCALE = 2.0**15


def make_batches(bad_examples, num_batches=3):
    """Batches of 4 examples: the replicas get 2 each. 1e30 is inf in float16."""
    x = np.linspace(0.01, 0.1, num_batches * 4 * 3).reshape(-1, 3).astype("float32")
    x[bad_examples] = 1e30
    return tf.data.Dataset.from_tensor_slices((x, x.sum(1, keepdims=True))).batch(4)


def make_state(strategy, optimizer=None):
    keras.config.set_dtype_policy("mixed_float16")
    with strategy.scope():
        layers = [keras.Input((3,)), keras.layers.Dense(1), keras.layers.Activation("linear")]
        optimizer = optimizer or keras.optimizers.SGD(0.01, momentum=0.9)
        return TrainState(keras.Sequential(layers), optimizer, loss="mse")


def local_values(strategy, variables):
    return [
        [value.numpy() for value in strategy.experimental_local_results(variable.value)]
        for variable in variables
    ]


def train(state, strategy, dataset, num_steps):
    state.build(dataset.element_spec)
    function = make_train_function(train_step, state, strategy, TrainConfig())
    iterator = iter(strategy.experimental_distribute_dataset(dataset))
    snapshots = []
    for _ in range(num_steps):
        function(iterator, tf.constant(1))
        snapshots.append(local_values(strategy, state.model.variables))
    return snapshots


@pytest.fixture
def two_cpus():
    return make_strategy(TrainConfig(strategy="mirrored", num_replicas=2))


@pytest.mark.parametrize("bad_example", [4, 7], ids=["first replica", "second replica"])
def test_inf_on_one_replica_skips_the_step_on_all(two_cpus, bad_example):
    state = make_state(two_cpus)
    good, bad, after = train(state, two_cpus, make_batches([bad_example]), 3)
    np.testing.assert_equal(bad, good)  # unchanged, on each replica
    assert all(np.isfinite(value).all() for values in after for value in values)
    assert not np.array_equal(after[0][0], good[0][0])  # training goes on
    scales = local_values(two_cpus, [state.optimizer.dynamic_scale])[0]
    assert scales == [INITIAL_SCALE / 2] * 2  # halved once, on all
    assert int(state.optimizer.iterations.numpy()) == 2  # the skipped step does not count


def test_inf_on_the_only_replica_skips_the_step():
    strategy = tf.distribute.get_strategy()
    state = make_state(strategy)
    good, bad, _ = train(state, strategy, make_batches([7]), 3)
    np.testing.assert_equal(bad, good)
    assert float(state.optimizer.dynamic_scale.numpy()) == INITIAL_SCALE / 2


def test_one_replica_equals_fit_bit_for_bit():
    dataset = make_batches([7])
    state = make_state(tf.distribute.get_strategy())
    initial = state.model.get_weights()
    train(state, tf.distribute.get_strategy(), dataset, 3)
    expected = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    expected.set_weights(initial)
    expected.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss="mse")
    expected.fit(dataset, verbose=0, shuffle=False)
    assert isinstance(expected.optimizer, keras.optimizers.LossScaleOptimizer)
    for weight, other in zip(state.model.variables, expected.variables, strict=True):
        np.testing.assert_array_equal(weight.numpy(), other.numpy())
    for slot, other in zip(state.optimizer.variables, expected.optimizer.variables, strict=True):
        np.testing.assert_array_equal(slot.numpy(), other.numpy())


def test_nothing_to_train_is_said():
    with pytest.warns(UserWarning, match=r"no trainable variables.*trainable = True"):
        gradients_lib.apply_gradients(keras.optimizers.SGD(), [], [])


def test_no_gradient_at_all_is_an_error():
    variable = keras.Variable(1.0)
    optimizer = keras.optimizers.SGD()
    optimizer.build([variable])
    with pytest.raises(ValueError, match="gradient"):
        gradients_lib.apply_gradients(optimizer, [None], [variable])


def test_one_gradient_a_variable():
    variable = keras.Variable(1.0)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        gradients_lib.apply_gradients(keras.optimizers.SGD(), [tf.constant(1.0)] * 2, [variable])
