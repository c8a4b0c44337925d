"""Whole loops in XLA: the bits of compiled steps, over any number of steps, stacks and epochs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.data import pipeline
from gradloop.engine import compiled_loop

NUM_EXAMPLES, BATCH_SIZE = 70, 8  # eight full batches and one of six


@pytest.fixture
def small_stacks(monkeypatch):
    """Stacks of three batches, so that an epoch needs several and the last one overlaps."""
    monkeypatch.setattr(compiled_loop, "MAX_STACK_STEPS", 3)


def make_state():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")]
    )
    return engine.TrainState(
        model,
        keras.optimizers.RMSprop(),
        loss=keras.losses.CategoricalCrossentropy(),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )


def make_dataset(**kwargs):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (NUM_EXAMPLES, 4, 4), dtype=np.uint8)
    y = rng.integers(0, 10, NUM_EXAMPLES)
    options = {"global_batch_size": BATCH_SIZE, "num_classes": 10, "shuffle": True} | kwargs
    return pipeline.make_dataset(x, y, **options)


def train(dataset, **kwargs):
    state = make_state()
    config = engine.TrainConfig(**{"epochs": 2, **kwargs})
    history = engine.fit(state, dataset, config)
    return [v.numpy() for _, v in state.named_variables()], history


WEIGHTS = np.linspace(0.5, 2.0, NUM_EXAMPLES)


@pytest.mark.usefixtures("small_stacks")
@pytest.mark.parametrize(
    ("options", "steps_per_execution"),
    [({}, 2), ({}, 100), ({"drop_remainder": True}, 5), ({"sample_weight": WEIGHTS}, 5)],
    ids=["partial-2", "partial-100", "dropped-5", "weighted-5"],
)
def test_the_bits_are_those_of_compiled_steps(options, steps_per_execution):
    expected, expected_history = train(make_dataset(**options), jit_compile=True)
    found, history = train(
        make_dataset(**options),
        jit_compile=True,
        jit_scope="loop",
        steps_per_execution=steps_per_execution,
    )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert history.history == expected_history.history
    assert history.num_steps == expected_history.num_steps


@pytest.mark.usefixtures("small_stacks")
def test_an_epoch_of_few_steps_goes_on_in_the_data():
    changes = {"steps_per_epoch": 3, "epochs": 4}
    expected, _ = train(make_dataset(), jit_compile=True, **changes)
    found, _ = train(make_dataset(), jit_compile=True, jit_scope="loop", **changes)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def augmented():
    return make_dataset(augment=tf.image.stateless_random_flip_left_right)


def small():
    return make_dataset().unbatch().take(5).batch(2)


@pytest.mark.parametrize("make", [augmented, small], ids=["augmented", "streamed"])
def test_batches_that_cannot_be_stacked_are_trained_in_compiled_steps(make):
    found, _ = train(make(), jit_compile=True, jit_scope="loop")
    expected, _ = train(make(), jit_compile=True)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_fewer_examples_than_a_batch():
    found, _ = train(make_dataset(global_batch_size=100), jit_compile=True, jit_scope="loop")
    expected, _ = train(make_dataset(global_batch_size=100), jit_compile=True)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
