"""sync_statistics: what layers keep beside weights is averaged over the replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.engine.replicas.statistics import average_statistics, statistics_of
from gradloop.engine.variables import local_values
from tests.engine.nets import compile_arguments, make_compiled, make_config, make_pipeline, mirrored
from tests.engine.observers import StopAfter


def build_normalized(synchronized=False):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5),
            keras.layers.BatchNormalization(momentum=0.5, synchronized=synchronized),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def make_normalized(num_replicas=2, synchronized=False):
    keras.utils.clear_session(free_memory=False)
    strategy = mirrored(num_replicas) if num_replicas > 1 else tf.distribute.get_strategy()
    with strategy.scope():
        return engine.TrainState(build_normalized(synchronized), **compile_arguments())


def make_data(arrays):
    return make_pipeline(arrays, shuffle=False, drop_remainder=True)  # 6 batches


def train(arrays, *hooks, state=None, resume=False, val=None, **fields):
    state = state or make_normalized()
    config = make_config(**{"epochs": 2} | fields)
    data = make_data(arrays)
    history = engine.fit(state, data, config, validation_data=val, hooks=hooks, resume=resume)
    return state, history


def local_statistics(model):
    """Returns each replica's moving mean and variance, with the replicas first."""
    normalization = model.layers[1]
    variables = (normalization.moving_mean, normalization.moving_variance)
    return [np.array([copy.numpy() for copy in v.value.values]) for v in variables]


def is_alike(model):
    return [bool((values == values[0]).all()) for values in local_statistics(model)]


class Locals(engine.Hook):
    """Keeps what the replicas have after the last step."""

    every_steps = 1

    def on_execution_end(self, info):
        self.values = local_statistics(info.state.model)


def test_fit_lets_them_drift_and_the_engine_brings_them_together(arrays):
    model = make_compiled(build_normalized, compile_arguments, mirrored())
    model.fit(make_data(arrays), epochs=2, verbose=0, shuffle=False)
    assert is_alike(model) == [False, False]
    drift = [abs(v[0] - v[1]).max() for v in local_statistics(model)]
    assert min(drift) > 0.05

    before = Locals()
    state, _ = train(arrays, before)
    assert is_alike(state.model) == [True, True]
    for found, kept in zip(local_statistics(state.model), before.values, strict=True):
        np.testing.assert_array_equal(found[0], kept.astype("float64").mean(0).astype("float32"))
        assert (kept[0] != kept[1]).any()


@pytest.mark.parametrize("fields", [{"parity": "fit"}, {"sync_statistics": False}])
def test_each_replica_has_those_of_fit_where_that_is_asked_for(arrays, fields):
    model = make_compiled(build_normalized, compile_arguments, mirrored())
    model.fit(make_data(arrays), epochs=2, verbose=0, shuffle=False)
    state, _ = train(arrays, **fields)
    for found, expected in zip(local_statistics(state.model), local_statistics(model), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("period", [None, 6])
def test_validation_has_the_averages(arrays, period, tmp_path):
    val = make_data(arrays)
    fields = {"val": val, "validate_every_steps": period}
    state, history = train(arrays, **fields, epochs=1)
    path = engine.save_checkpoint(tmp_path, state)
    assert history.history["val_loss"][-1] == engine.evaluate(state, val, make_config())["loss"]
    alone = make_normalized(1)
    alone.build(val.element_spec)
    engine.restore_checkpoint(path, alone)
    loss = engine.evaluate(alone, val, make_config())["loss"]
    np.testing.assert_allclose(loss, history.history["val_loss"][-1], rtol=1e-6)


@pytest.mark.parametrize("stop", [2, 6])
def test_a_run_that_saves_or_is_resumed_has_the_bits_of_one_that_does_neither(
    arrays, tmp_path, stop
):
    whole, expected = train(arrays)
    save = engine.SaveCheckpoint(tmp_path, every_steps=1)
    train(arrays, StopAfter(stop), save)
    state = make_normalized()
    state.build(make_data(arrays).element_spec)
    engine.restore_checkpoint(tmp_path, state)
    state, history = train(arrays, save, state=state, resume=True)
    assert history.history == expected.history
    for found, other in zip(
        local_statistics(state.model), local_statistics(whole.model), strict=True
    ):
        np.testing.assert_array_equal(found, other)
    assert state.weights_sha256() == whole.weights_sha256()


@pytest.mark.parametrize("num_replicas", [1, 3])
def test_a_file_from_within_an_epoch_gives_other_replicas_the_mean(arrays, tmp_path, num_replicas):
    state, _ = train(arrays, StopAfter(2))
    assert is_alike(state.model) == [False, False]
    path = engine.save_checkpoint(tmp_path, state)
    other = make_normalized(num_replicas)
    other.build(make_data(arrays).element_spec)
    engine.restore_checkpoint(path, other)
    for variable, expected in zip(statistics_of(other), local_statistics(state.model), strict=True):
        (found,) = local_values(variable)
        np.testing.assert_array_equal(found, expected.astype("float64").mean(0).astype("float32"))


def test_what_is_alike_keeps_its_bits(arrays):
    digests = {
        train(arrays, state=make_normalized(synchronized=True), sync_statistics=syncs)[
            0
        ].weights_sha256()
        for syncs in (True, False)
    }
    assert len(digests) == 1
    state = make_normalized(3)
    state.build(make_data(arrays).element_spec)
    for variable in statistics_of(state):
        variable.assign(np.random.default_rng(1).normal(size=variable.shape))
    before = local_statistics(state.model)
    average_statistics(state)
    for found, expected in zip(local_statistics(state.model), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_states_seeds_and_what_is_frozen_are_no_statistics():
    keras.utils.set_random_seed(1)
    normalization, frozen = keras.layers.BatchNormalization(), keras.layers.BatchNormalization()
    dense = keras.layers.Dense(2, trainable=False)
    rnn = keras.layers.LSTM(3, stateful=True)
    layers = [normalization, rnn, dense, keras.layers.Dropout(0.5), frozen]
    model = keras.Sequential([keras.Input(batch_shape=(2, 5, 4)), *layers])
    frozen.trainable = False
    inner = build_normalized()
    state = engine.TrainState(model, "sgd", loss="mse", extras={"models": [inner]})
    of_inner = inner.layers[1]
    assert statistics_of(state) == [
        normalization.moving_mean,
        normalization.moving_variance,
        of_inner.moving_mean,
        of_inner.moving_variance,
    ]
