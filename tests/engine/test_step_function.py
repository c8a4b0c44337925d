"""StepFunction: N steps a call, one trace, results at log boundaries."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.engine.config import TrainConfig
from gradloop.engine.state import TrainState
from gradloop.engine.step import eval_step, train_step
from gradloop.engine.step_function import make_eval_function, make_train_function
from gradloop.engine.strategy import make_strategy

SIZES = (4, 4, 4, 2)


def make_dataset():
    x = np.random.default_rng(0).normal(size=(sum(SIZES), 3)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, x.sum(1, keepdims=True))).batch(4)


def make_state(strategy=None, metrics=None):
    keras.utils.set_random_seed(1)
    with (strategy or tf.distribute.get_strategy()).scope():
        layers = [keras.Input((3,)), keras.layers.Dense(1, name="dense")]
        model = keras.Sequential(layers, name="net")
        state = TrainState(model, "sgd", loss="mse", metrics=metrics)
    state.build(make_dataset().element_spec)
    return state


def make_function(state, step=train_step, make=make_train_function, **fields):
    return make(step, state, state.strategy, TrainConfig(**fields))


def test_any_number_of_steps_with_one_trace():
    state = make_state()
    function = make_function(state)
    for sizes in [(1, 2, 1), (4,), (3, 1)]:
        iterator = iter(make_dataset())
        for size in sizes:
            function(iterator, tf.constant(size))
            assert int(function.num_steps_done) == size
    assert int(state.optimizer.iterations) == 12
    assert function.num_traces == 1


def test_size_of_executions_does_not_change_a_bit():
    digests = set()
    for size in (1, 3, 4):
        state = make_state()
        function, iterator = make_function(state), iter(make_dataset())
        for _ in range(0, 4, size):
            function(iterator, tf.constant(size))
        assert int(state.optimizer.iterations) == 4
        digests.add(state.weights_sha256())
    assert len(digests) == 1


def test_data_that_end_end_the_execution():
    function = make_function(make_state())
    iterator = iter(make_dataset())
    logs = function(iterator, tf.constant(9))
    assert int(function.num_steps_done) == len(SIZES)
    assert float(logs["loss"]) > 0
    function(iterator, tf.constant(1))
    assert int(function.num_steps_done) == 0


def test_no_batch_is_lost_between_executions():
    seen = make_state(metrics=[keras.metrics.MeanMetricWrapper(lambda y, p: y, name="mean")])
    function, iterator = make_function(seen, eval_step, make_eval_function), iter(make_dataset())
    for _ in range(3):
        logs = function(iterator, tf.constant(1))
    np.testing.assert_allclose(
        logs["mean"], np.mean([y for _, y in make_dataset().take(3)]), rtol=1e-5
    )
    assert next(iterator)[0].shape == (SIZES[-1], 3)


@pytest.mark.parametrize("num_steps", [3, np.int32(3)])
def test_python_number_of_steps_is_an_error(num_steps):
    function = make_function(make_state())
    with pytest.raises(TypeError, match=r"num_steps must be a tensor.*trace.*tf\.constant"):
        function(iter(make_dataset()), num_steps)
    assert function.num_traces == 0


class CountedResults(keras.metrics.Mean):
    """Counts how often its result is computed, with an operation that may be pruned."""

    num_results = 0

    def result(self):
        def count(value):
            CountedResults.num_results += 1
            return value

        value = tf.numpy_function(count, [super().result()], tf.float32, stateful=False)
        return tf.ensure_shape(value, [])

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(y_pred)


def test_results_of_metrics_are_computed_once_an_execution():
    state = make_state(metrics=[CountedResults(name="counted")])
    function = make_function(state)
    dataset = make_dataset().repeat()
    function(iter(dataset), tf.constant(1))
    CountedResults.num_results = 0
    function(iter(dataset), tf.constant(20))
    assert CountedResults.num_results == 1


def test_metrics_go_on_until_they_are_reset():
    state = make_state()
    function = make_function(state, eval_step, make_eval_function)
    whole = function(iter(make_dataset()), tf.constant(4))
    twice = function(iter(make_dataset()), tf.constant(4))
    np.testing.assert_allclose(twice["loss"], whole["loss"], rtol=1e-6)
    state.reset_metrics()
    first = function(iter(make_dataset()), tf.constant(1))
    assert abs(float(first["loss"]) - float(whole["loss"])) > 1e-3


def test_replicas_get_their_parts_and_the_partial_batch_too():
    strategy = make_strategy(TrainConfig(strategy="mirrored", num_replicas=2))
    one, two = make_state(), make_state(strategy)
    make_function(one)(iter(make_dataset()), tf.constant(4))
    function = make_function(two)
    iterator = iter(strategy.experimental_distribute_dataset(make_dataset()))
    function(iterator, tf.constant(3))
    function(iterator, tf.constant(1))
    assert function.num_traces == 1
    for weight, other in zip(one.model.variables, two.model.variables, strict=True):
        np.testing.assert_allclose(weight.numpy(), other.numpy(), rtol=1e-5)


def test_xla_around_replicas_is_an_error():
    strategy = make_strategy(TrainConfig(strategy="mirrored", num_replicas=2))
    with pytest.raises(ValueError, match=r"jit_scope='loop' with 2 replicas.*'step'"):
        make_function(make_state(strategy), jit_compile=True, jit_scope="loop")


def test_jit_compiled_step_equals_that_of_keras():
    state = make_state()
    initial = state.model.get_weights()
    make_function(state, jit_compile=True)(iter(make_dataset()), tf.constant(4))
    expected = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    expected.set_weights(initial)
    expected.compile("sgd", "mse", jit_compile=True)
    expected.fit(make_dataset(), verbose=0, shuffle=False)
    for weight, other in zip(state.model.variables, expected.variables, strict=True):
        np.testing.assert_array_equal(weight.numpy(), other.numpy())


def test_structure_that_changes_is_traced_again_and_counted():
    state = make_state()
    function = make_function(state, eval_step, make_eval_function)
    function(iter(make_dataset()), tf.constant(1))
    weighted = make_dataset().map(lambda x, y: (x, y, tf.ones(tf.shape(y)[0])))
    function(iter(weighted), tf.constant(1))
    assert function.num_traces == 2


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_each_call_measures_its_seconds_and_the_size_of_its_first_batch(num_replicas):
    strategy = make_strategy(TrainConfig(strategy="mirrored", num_replicas=num_replicas))
    state = make_state(strategy)
    function = make_function(state, eval_step, make_eval_function)
    iterator = iter(strategy.experimental_distribute_dataset(make_dataset()))
    sizes = []
    for num_steps in (1, 2, 1, 1):
        function(iterator, tf.constant(num_steps))
        graph_secs, waited_secs, num_examples = function.measured.numpy()
        assert 0 <= waited_secs <= graph_secs < 10
        sizes.append(int(num_examples))
    assert sizes == [4, 4, 2, 0]  # of the whole batch; the last call found no data


def test_the_first_batch_has_no_size_where_it_has_no_leading_dimension():
    state = make_state()
    scalars = tf.data.Dataset.from_tensors((1.0, 2.0))
    function = make_function(state, lambda state, batch: {"sum": batch[0] + batch[1]})
    assert float(function(iter(scalars), tf.constant(1))["sum"]) == 3.0
    assert function.measured.numpy()[2] == 0


def test_sums_have_the_same_bits_in_each_run():
    """TensorFlow would split them to save memory, and add in any order."""
    x = np.random.default_rng(0).normal(size=(16_384, 8)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, x[:, :1])).batch(len(x), drop_remainder=True)

    def trained():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((8,), batch_size=len(x))
        hidden = keras.layers.Dense(1024)(inputs)
        # Of a gradient that is a sum of three, 64 MB each.
        total = hidden + keras.ops.tanh(hidden) + hidden * hidden
        model = keras.Model(inputs, keras.layers.Dense(1)(total))
        model.compile("adam", "mse", jit_compile=False)
        engine.fit(engine.TrainState(model), data.repeat(), engine.TrainConfig(steps_per_epoch=3))
        return model.get_weights()

    runs = [trained() for _ in range(3)]
    for weights in zip(*runs, strict=True):
        assert all(np.array_equal(weights[0], other) for other in weights)
