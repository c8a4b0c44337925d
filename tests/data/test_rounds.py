"""Rounds of new data: fit goes on with a replaced dataset without a new trace."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.data import pipeline

NUM_ROUNDS = 3
MODES = {
    "streamed": {"input": "streamed"},
    "resident": {"input": "resident"},
    "whole loop": {"jit_compile": True, "jit_scope": "loop"},
    "mirrored": {"strategy": "mirrored", "num_replicas": 2},
}


def round_of_data(number):
    rng = np.random.default_rng(number)
    x, y = rng.normal(size=(50, 4)).astype("float32"), rng.integers(0, 3, 50)
    return {"x": x, "y": y, "sample_weight": rng.uniform(size=50)}


def train(next_dataset, **options):
    """Returns the weights after each round, and the traces that each took."""
    config = engine.TrainConfig(**options)
    strategy = engine.make_strategy(config)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = keras.Sequential([keras.Input([4]), keras.layers.Dense(3)])
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        state = engine.TrainState(model, "adam", loss=loss, metrics=["accuracy"])
    weights, num_traces = [], []
    for number in range(NUM_ROUNDS):
        config = engine.TrainConfig(initial_epoch=number, epochs=number + 1, **options)
        history = engine.fit(state, next_dataset(number), config)
        weights.append(model.get_weights())
        num_traces.append(history.num_traces)
    return weights, num_traces


def new_dataset(number):
    return pipeline.make_dataset(
        **round_of_data(number), global_batch_size=8, num_classes=3, shuffle=True, seed=5
    )


def replaced(dataset):
    def next_dataset(number):
        if number:
            dataset.replace(**round_of_data(number))
        return dataset

    return next_dataset


@pytest.mark.parametrize("mode", MODES)
def test_fit_on_replaced_data_traces_nothing_and_equals_a_new_dataset(mode):
    weights, num_traces = train(replaced(new_dataset(0)), **MODES[mode])
    expected, _ = train(new_dataset, **MODES[mode])
    assert num_traces == [1, 0, 0]
    for found, wanted in zip(weights, expected, strict=True):
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(weights[0][0], weights[1][0])


class Replace(engine.Hook):
    """Replaces the data in the middle of the first epoch, or at its end."""

    def __init__(self, dataset, moment):
        self.dataset = dataset
        self.moment = moment

    def replace(self, info, moment):
        if moment == self.moment and info.progress.epoch == 0:
            self.dataset.replace(**round_of_data(1))
            self.moment = None

    def on_execution_end(self, info):
        self.replace(info, "on_execution_end")

    def on_epoch_end(self, info):
        self.replace(info, "on_epoch_end")


@pytest.mark.parametrize("moment", ["on_execution_end", "on_epoch_end"])
@pytest.mark.parametrize("where", ["streamed", "resident"])
def test_a_hook_that_replaces_changes_the_next_epoch_and_not_the_one_that_runs(moment, where):
    expected, _ = train(new_dataset, input=where)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(3)])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    state = engine.TrainState(model, "adam", loss=loss, metrics=["accuracy"])
    dataset = new_dataset(0)
    config = engine.TrainConfig(epochs=2, steps_per_execution=2, input=where)
    history = engine.fit(state, dataset, config, hooks=[Replace(dataset, moment)])
    assert history.num_traces == 1
    for one, other in zip(model.get_weights(), expected[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_evaluation_follows_too():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(3)])
    state = engine.TrainState(model, "sgd", loss="categorical_crossentropy")
    dataset, config = new_dataset(0), engine.TrainConfig()
    before = engine.evaluate(state, dataset, config)
    dataset.replace(**round_of_data(1))
    after = engine.evaluate(state, dataset, config)
    assert after != before
    assert after == engine.evaluate(state, new_dataset(1), config)
    assert isinstance(dataset, tf.data.Dataset)
