"""Input bound or not, and advice that follows from what was measured."""

import itertools
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.data import pipeline
from gradloop.engine.config import TrainConfig
from gradloop.engine.state import TrainState
from gradloop.engine.step import train_step
from gradloop.engine.strategy import make_strategy
from gradloop.engine.tuning.input_diagnosis import InputDiagnosis, diagnose_input
from gradloop.engine.tuning.trial import make_trial

X = np.random.default_rng(0).normal(size=(640, 64)).astype("float32")
Y = X[:, :1].copy()


@pytest.fixture(autouse=True)
def short_windows(monkeypatch):
    monkeypatch.setattr("gradloop.engine.tuning.trial.WARM_UP_SECS", 0.3)
    monkeypatch.setattr("gradloop.engine.tuning.trial.WINDOW_SECS", 0.1)


def make_state(units=512):
    layers = [keras.layers.Dense(units, "relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(1)])
    return TrainState(model, "sgd", loss="mse")


def make_streamed():
    batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(64)
    return batches.cache().repeat(1000).prefetch(4)


def make_slow():
    def sleep(x):
        time.sleep(0.02)
        return x

    return make_streamed().map(
        lambda x, y: (tf.ensure_shape(tf.numpy_function(sleep, [x], x.dtype), x.shape), y)
    )


def make_resident():
    return pipeline.make_dataset(np.tile(X, (50, 1)), np.tile(Y, (50, 1)), global_batch_size=64)


def test_a_slow_dataset_is_named_as_the_bound():
    found = diagnose_input(make_state, make_slow, TrainConfig())
    assert found.is_input_bound
    assert found.share < 0.5
    assert found.waiting_share > 0.5
    assert found.pipeline_images_per_sec < 64 / 0.02
    assert found.images_per_sec < found.ceiling_images_per_sec / 2
    assert found.cores_busy < 0.7 * found.num_cores
    assert any("num_parallel_calls" in text for text in found.advice)
    assert any(".cache()" in text for text in found.advice)
    assert "input bound" in found.to_text()
    assert found.to_dict()["is_input_bound"] is True


@pytest.mark.parametrize("make_dataset", [make_streamed, make_resident])
def test_a_fast_dataset_is_not(make_dataset):
    found = diagnose_input(make_state, make_dataset, TrainConfig())
    assert not found.is_input_bound, found
    assert found.waiting_share < 0.2
    assert (found.advice, found.prefetch_gain) == ([], None)
    assert found.is_resident == (make_dataset is make_resident)
    assert "not input bound" in found.to_text()


def test_a_streamed_input_is_diagnosed_as_streamed():
    found = diagnose_input(make_state, make_resident, TrainConfig(input="streamed"))
    assert not found.is_resident


def test_steps_in_python_are_diagnosed_as_streamed():
    found = diagnose_input(lambda: make_state(8), make_resident, TrainConfig(run_eagerly=True))
    assert not found.is_resident


@pytest.mark.parametrize("input_kind", ["auto", "streamed"])
def test_a_step_of_several_batches_counts_the_images_of_all(input_kind):
    def step(state, iterator):
        return train_step(state, [next(iterator) for _ in range(4)][-1])

    state = make_state(8)
    dataset = pipeline.make_dataset(X, Y, global_batch_size=64)  # of ten batches
    trial = make_trial(state, dataset, TrainConfig(input=input_kind), step)
    num_steps = sum(one.num_steps for one in itertools.islice(trial._executions, 12))
    assert trial.batches_per_step == 4
    assert num_steps == int(state.optimizer.iterations.numpy())


@pytest.mark.slow
def test_the_state_of_a_strategy_is_diagnosed_too():
    strategy = make_strategy(TrainConfig(strategy="mirrored", num_replicas=2))
    found = diagnose_input(lambda: make_state(8), make_slow, TrainConfig(), strategy=strategy)
    assert found.is_input_bound
    assert not found.is_resident


def test_data_without_an_end_need_a_length_as_in_fit():
    endless = lambda: make_slow().repeat()  # noqa: E731
    assert diagnose_input(make_state, endless, TrainConfig(steps_per_epoch=7)).is_input_bound
    with pytest.raises(ValueError, match="no end"):
        diagnose_input(make_state, endless, TrainConfig())


def test_sparse_batches_are_diagnosed_too():
    def make_sparse_state():
        model = keras.Sequential([keras.Input((64,), sparse=True), keras.layers.Dense(1)])
        return TrainState(model, "sgd", loss="mse")

    def make_dataset():
        x = tf.sparse.from_dense(X * (X > 1))
        return tf.data.Dataset.from_tensor_slices((x, Y)).batch(64).repeat(100)

    found = diagnose_input(make_sparse_state, make_dataset, TrainConfig())
    assert (found.batch_size, found.is_resident) == (64, False)
    assert found.pipeline_images_per_sec > 0


def test_a_dataset_without_batches_is_an_error():
    with pytest.raises(ValueError, match="no batch"):
        diagnose_input(make_state, lambda: make_streamed().take(0), TrainConfig())


FOUND = InputDiagnosis(
    share=0.5, share_low=0.4, share_high=0.6, images_per_sec=500.0, ceiling_images_per_sec=1000.0,
    prefetch_gain=1.0, pipeline_images_per_sec=500.0, waiting_share=0.5, cores_busy=1.0,
    num_cores=4, batch_size=10, num_bytes=1000, is_resident=False,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["1.0 of 4 cores", ".cache()"]),
        ({"prefetch_gain": 1.5}, ["1.50 times the speed", "1.0 of 4 cores", ".cache()"]),
        ({"cores_busy": 0.1}, ["waits more than it computes", ".cache()"]),
        ({"cores_busy": 3.9}, ["all cores", ".cache()"]),
        ({"num_bytes": 10**18}, ["1.0 of 4 cores"]),
        ({"num_bytes": None}, ["1.0 of 4 cores"]),
        ({"pipeline_images_per_sec": 9000.0}, ["takes cores from the step"]),
        ({"pipeline_images_per_sec": 9000.0, "cores_busy": 0.1}, ["come late"]),
        (
            {"pipeline_images_per_sec": 9e9, "ceiling_images_per_sec": 1e6, "is_resident": True},
            ["larger batches"],
        ),
        ({"share_high": 0.95}, []),
    ],
)
def test_advice_follows_from_what_was_measured(changes, expected):
    advice = InputDiagnosis(**vars(FOUND) | changes).advice
    assert len(advice) == len(expected), advice
    for text, words in zip(advice, expected, strict=True):
        assert words in text
