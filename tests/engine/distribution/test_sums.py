"""Counts in logs, losses that are sums, and metrics that are maxima: as on one replica."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from tests.engine.nets import build_dense, make_config, make_pipeline, mirrored
from tests.engine.observers import StopAfter

BATCH_SIZE = 6  # divides among 2 and 3 replicas; the last batch has 2 examples


def make_data(arrays):
    return make_pipeline(arrays, shuffle=False, global_batch_size=BATCH_SIZE)


def make_state(num_replicas, build=build_dense, **arguments):
    keras.utils.clear_session(free_memory=False)
    default = tf.distribute.get_strategy()
    with (mirrored(num_replicas) if num_replicas > 1 else default).scope():
        made = {name: make() for name, make in arguments.items()}
        loss = "sparse_categorical_crossentropy"
        return engine.TrainState(build(), keras.optimizers.SGD(0.1), loss=loss, **made)


def counting_step(state, batch):
    num_high = tf.math.count_nonzero(batch[0] > 0.5)
    return {**engine.train_step(state, batch), "num_high": engine.total(num_high)}


@pytest.mark.parametrize("num_replicas", [1, 2])
@pytest.mark.parametrize("eager", [False, True])
def test_counts_are_summed_over_replicas_and_steps(arrays, num_replicas, eager):
    config = make_config(epochs=2, run_eagerly=eager)
    state = make_state(num_replicas)
    history = engine.fit(state, make_data(arrays), config, train_step=counting_step)
    assert history.history["num_high"] == [float((arrays[0] > 0.5).sum())] * 2


def test_a_count_goes_on_in_a_run_that_is_resumed(arrays, tmp_path):
    state, data = make_state(2), make_data(arrays)
    hooks = [StopAfter(3), engine.SaveCheckpoint(tmp_path)]
    engine.fit(state, data, make_config(), train_step=counting_step, hooks=hooks)
    state = make_state(2)
    state.build(data.element_spec)
    engine.restore_checkpoint(tmp_path, state)
    history = engine.fit(state, data, make_config(), train_step=counting_step, resume=True)
    assert history.history["num_high"] == [float((arrays[0] > 0.5).sum())]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_count_goes_on_on_another_number_of_replicas(arrays, tmp_path, before, after):
    data = make_data(arrays)
    hooks = [StopAfter(3), engine.SaveCheckpoint(tmp_path)]
    engine.fit(make_state(before), data, make_config(), train_step=counting_step, hooks=hooks)
    state = make_state(after)
    state.build(data.element_spec)
    engine.restore_checkpoint(tmp_path, state)
    with pytest.warns(UserWarning, match=f"num_replicas={before}"):
        history = engine.fit(state, data, make_config(), train_step=counting_step, resume=True)
    assert history.history["num_high"] == [float((arrays[0] > 0.5).sum())]


class SumOfSquares(keras.layers.Layer):
    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def call(self, x):
        self.add_loss(self.wrap(0.1 * tf.reduce_sum(x**2)))
        return x


def build_summed(wrap):
    layers = build_dense().layers
    return keras.Sequential([keras.Input((4,)), layers[0], SumOfSquares(wrap)])


def train_summed(arrays, num_replicas, wrap):
    state = make_state(num_replicas, lambda: build_summed(wrap))
    history = engine.fit(state, make_data(arrays), make_config(epochs=2))
    return state.model.get_weights()[0], history.history["loss"]


def test_a_loss_that_is_a_sum_is_that_of_one_replica(arrays):
    plain, expected_loss = train_summed(arrays, 1, lambda value: value)
    alone, _ = train_summed(arrays, 1, engine.as_sum)
    np.testing.assert_array_equal(alone, plain)
    found, loss = train_summed(arrays, 3, engine.as_sum)
    np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    as_in_fit, _ = train_summed(arrays, 3, lambda value: value)
    assert abs(as_in_fit - plain).max() > 0.01


class LargestScore(engine.Largest):
    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(-y_pred)  # below zero, which a replica has that has seen nothing


class OwnMaximum(keras.metrics.Metric):
    def __init__(self):
        super().__init__(name="own")
        self.value = self.add_variable((), "zeros", name="value")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.value.assign(tf.maximum(self.value, tf.reduce_max(y_pred)))

    def result(self):
        return self.value


def train_with(arrays, num_replicas, metric, *hooks, state=None, **kwargs):
    state = state or make_state(num_replicas, metrics=lambda: [metric()])
    data = make_data(arrays)
    config = make_config(epochs=2)
    return state, engine.fit(state, data, config, validation_data=data, hooks=hooks, **kwargs)


def test_the_largest_value_is_that_of_all_replicas(arrays):
    def largest(num_replicas):
        _, history = train_with(arrays, num_replicas, lambda: LargestScore(name="largest"))
        return [history.history[name] for name in ("largest", "val_largest")]

    expected = largest(1)
    assert max(map(max, expected)) < 0
    np.testing.assert_allclose(largest(3), expected, rtol=1e-5)


def test_a_file_of_other_replicas_is_read(arrays, tmp_path):
    make = lambda: LargestScore(name="largest")  # noqa: E731
    state, _ = train_with(arrays, 2, make, StopAfter(3), engine.SaveCheckpoint(tmp_path))
    state = make_state(1, metrics=lambda: [make()])
    state.build(make_data(arrays).element_spec)
    engine.restore_checkpoint(tmp_path, state)
    with pytest.warns(UserWarning, match="num_replicas=2"):
        _, history = train_with(arrays, 1, make, state=state, resume=True)
    assert len(history.history["largest"]) == 2


def test_a_maximum_that_replicas_would_add_is_named(arrays):
    train_with(arrays, 1, OwnMaximum)
    with pytest.warns(UserWarning, match="variable own/value keeps a maximum.*engine.Largest"):
        _, history = train_with(arrays, 2, OwnMaximum)
    assert history.history["own"][-1] > 1  # of probabilities
