"""Trials that fail or are slow: what their rows say, and that the search goes on."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.engine.tuning import bench, search
from gradloop.engine.tuning.choice import Bits
from tests.engine.tuning.fake_trials import FakeTrial


@pytest.fixture
def measure(monkeypatch):
    """Returns a function that measures changes beside the defaults, in trials that do not train."""

    def run(make_trial, changes):
        monkeypatch.setattr(
            bench, "make_trial", lambda state, dataset, config, step: make_trial(config)
        )
        makers = bench.Makers(lambda: None, lambda **changes: None, None, None)
        with contextlib.ExitStack() as processes:
            one = bench.Bench(makers, engine.TrainConfig(), processes)
            return one.measure(changes, one.measure_defaults())

    return run


FAST = {"numerics": "fast"}
BFLOAT16 = FAST | {"precision": "mixed_bfloat16"}


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (TypeError("y is bfloat16\n\nof 'Sub'"), "y is bfloat16 of 'Sub'"),
        (ValueError("in user code:\n\n    File 'a.py'\n\n    TypeError: y\n"), "TypeError: y"),
        (tf.errors.InternalError(None, None, "x" * 1000), "x" * 160 + "..."),
        (AssertionError(), ""),
    ],
)
def test_a_trial_that_fails_is_a_row_that_says_why(measure, error, note):
    def make_trial(config):
        if config.precision is not None:
            raise error
        return FakeTrial(1.0)

    row = measure(make_trial, BFLOAT16)
    assert (row.gain, row.note) == (None, f"failed: {type(error).__name__}: {note}".rstrip(": "))
    assert keras.config.dtype_policy().name == "float32"


def test_defaults_that_fail_end_the_search(measure):
    def fail(config):
        raise TypeError("of one's own")

    with pytest.raises(TypeError, match="of one's own"):
        measure(fail, FAST)


class HeldUp(FakeTrial):
    """Is slow in its first windows."""

    def __init__(self, num_slow):
        super().__init__(1.0)
        self._num_slow = num_slow

    def measure(self, secs=None):
        self.speeds.append(0.1 if len(self.speeds) < self._num_slow else self.speed)


@pytest.mark.parametrize(
    ("num_slow", "expected"), [(1, (1.0, "")), (2, (None, "given up: 10.0 times slower"))]
)
def test_one_slow_window_gives_nothing_up(measure, num_slow, expected):
    row = measure(lambda c: HeldUp(num_slow) if c.numerics == "fast" else FakeTrial(1.0), FAST)
    assert (row.gain, row.note) == expected


def make_state():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
    return engine.TrainState(model, "sgd", loss="sparse_categorical_crossentropy")


def make_dataset(**changes):
    x, y = np.ones((32, 4), "float32"), np.zeros(32, "int64")
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(8)


@pytest.fixture
def quick(monkeypatch):
    for name, value in {"WARM_UP_SECS": 0.05, "NUM_ROUNDS": 2, "BURST_SECS": 0.02}.items():
        monkeypatch.setattr(bench, name, value)


@pytest.mark.usefixtures("quick")
def test_a_step_that_no_other_precision_fits_loses_nothing_else(monkeypatch):
    def step(state, batch):
        x, y = batch
        with tf.GradientTape() as tape:
            y_pred = state.call_model(x, training=True)
            loss = tf.reduce_mean(tf.square(tf.cast(y, tf.float32)[:, None] - y_pred))
        state.apply_gradients(tape.gradient(loss, state.model.trainable_variables))
        return state.update_metrics(loss, x, y, y_pred)

    monkeypatch.setattr(bench.runtime, "has_fast_bfloat16", lambda: True)
    free = FAST, (({}, {"precision": "mixed_bfloat16"}),)
    monkeypatch.setattr(search, "CLASSES", {Bits.FREE: free})
    result = search.tune(
        make_state, make_dataset, engine.TrainConfig(), train_step=step, max_secs=600.0
    )
    _, fast, bfloat16 = result.measurements
    assert fast.gain is not None
    assert (bfloat16.changes, bfloat16.gain) == (BFLOAT16, None)
    assert bfloat16.note.startswith("failed: ")
    assert "\n" not in bfloat16.note


@pytest.mark.usefixtures("quick")
def test_data_without_an_end_need_a_length_as_in_fit():
    def measure_defaults(**fields):
        config = engine.TrainConfig(**fields)
        return search.tune(make_state, lambda: make_dataset().repeat(), config, classes=())

    (defaults,) = measure_defaults(steps_per_epoch=4).measurements
    assert defaults.usecs_per_step > 0
    with pytest.raises(ValueError, match="no end"):
        measure_defaults()
