"""Where the time of a run goes: parts sum to the wall time, and what was planted is named."""

import contextlib
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.engine.config import TrainConfig
from gradloop.engine.hooks import Hook, SaveCheckpoint, WriteMetrics
from gradloop.engine.loop import fit
from gradloop.engine.state import TrainState
from gradloop.engine.storage.writers import MemoryWriter, MultiWriter
from gradloop.engine.strategy import make_strategy
from gradloop.engine.timing import part

NUM_STEPS, STEPS_PER_EXECUTION, BATCH_SIZE = 16, 2, 8
# A step, or an execution: long beside the moments for which a busy machine takes a thread away.
PLANTED_SECS = 0.05


class SlowHook(Hook):
    def on_execution_end(self, info):
        time.sleep(PLANTED_SECS)


class SlowWriter(MemoryWriter):
    def write(self, step, logs, *, epoch, kind):
        time.sleep(PLANTED_SECS)
        super().write(step, logs, epoch=epoch, kind=kind)


def make_dataset(num_steps=NUM_STEPS):
    x = np.random.default_rng(0).normal(size=(num_steps * BATCH_SIZE, 3)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, x.sum(1, keepdims=True))).batch(BATCH_SIZE)


def make_slow(dataset):
    def sleep(x):
        time.sleep(PLANTED_SECS)
        return x

    return dataset.map(
        lambda x, y: (tf.ensure_shape(tf.numpy_function(sleep, [x], x.dtype), x.shape), y)
    )


def make_state(strategy=None):
    with (strategy or tf.distribute.get_strategy()).scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        return TrainState(model, "sgd", loss="mse")


def measured_fit(dataset, *, strategy=None, **arguments):
    """Returns what was found, and the wall time as the caller sees it."""
    fields = {"epochs": 2, "steps_per_execution": STEPS_PER_EXECUTION}
    config = TrainConfig(**fields | arguments.pop("config", {}))
    state = make_state(strategy)
    began = time.perf_counter()
    history = fit(state, dataset, config, **arguments)
    return history.timing, time.perf_counter() - began


def largest_beside_compute(timing):
    # Neither tracing nor setup recurs: their share depends on the length of the run.
    once = ("compute", "tracing", "setup")
    return next(name for name in timing["parts"] if name not in once)


def secs_of(timing, name):
    return timing["parts"][name]["secs"]


def assert_sums_to(timing, wall_secs):
    parts = timing["parts"].values()
    assert sum(p["secs"] for p in parts) == pytest.approx(wall_secs, rel=0.02)
    assert sum(p["share"] for p in parts) == pytest.approx(1)
    assert all(p["secs"] >= 0 for p in parts)


def test_parts_sum_to_the_wall_time_with_all_there_is(tmp_path):
    hooks = [WriteMetrics(MultiWriter(MemoryWriter(), SlowWriter())), SaveCheckpoint(tmp_path)]
    timing, wall_secs = measured_fit(
        make_dataset(), hooks=[*hooks, SlowHook()], validation_data=make_dataset()
    )
    assert_sums_to(timing, wall_secs)
    assert set(timing["parts"]) >= {
        "compute", "data", "dispatch", "metrics", "evaluation", "tracing", "setup", "other",
        "checkpoints", "hooks/SlowHook", "hooks/WriteMetrics", "hooks/SaveCheckpoint",
        "writers/MemoryWriter", "writers/SlowWriter",
    }  # fmt: skip
    assert timing["parts"]["other"]["share"] < 0.02
    assert "writers/MultiWriter" not in timing["parts"]


def test_a_slow_hook_is_named():
    timing, wall_secs = measured_fit(make_dataset(), hooks=[SlowHook()])
    assert_sums_to(timing, wall_secs)
    assert largest_beside_compute(timing) == "hooks/SlowHook"
    num_calls = 2 * NUM_STEPS / STEPS_PER_EXECUTION
    assert secs_of(timing, "hooks/SlowHook") > 0.95 * num_calls * PLANTED_SECS


def test_a_slow_writer_is_named():
    hook = WriteMetrics(MultiWriter(MemoryWriter(), SlowWriter()))
    timing, wall_secs = measured_fit(make_dataset(), hooks=[hook])
    assert_sums_to(timing, wall_secs)
    assert largest_beside_compute(timing) == "writers/SlowWriter"
    assert secs_of(timing, "hooks/WriteMetrics") < secs_of(timing, "writers/SlowWriter") / 2


@pytest.mark.parametrize("size", [1, NUM_STEPS])
def test_a_slow_dataset_is_named(size):
    timing, wall_secs = measured_fit(
        make_slow(make_dataset()), config={"steps_per_execution": size}
    )
    assert_sums_to(timing, wall_secs)
    assert largest_beside_compute(timing) == "data"
    # Sleeps may last longer than asked; the steps hide next to nothing of them.
    assert secs_of(timing, "data") > 0.7 * 2 * NUM_STEPS * PLANTED_SECS
    assert secs_of(timing, "compute") < secs_of(timing, "data")


def test_a_slow_dataset_is_named_under_a_strategy():
    strategy = make_strategy(TrainConfig(strategy="mirrored", num_replicas=2))
    timing, wall_secs = measured_fit(make_slow(make_dataset(20)), strategy=strategy)
    assert_sums_to(timing, wall_secs)
    assert largest_beside_compute(timing) == "data"


def test_a_slow_step_is_compute_though_it_writes_nothing():
    def multiplying_step(state, batch):
        square = tf.random.stateless_uniform((1500, 1500), (1, 2)) + batch[0][0, 0]
        return {"sum": tf.reduce_sum(square @ square @ square)}

    timing, _ = measured_fit(make_dataset(), train_step=multiplying_step)
    assert secs_of(timing, "data") < secs_of(timing, "compute")


def test_percentiles_are_in_order():
    timing, _ = measured_fit(make_dataset())
    for kind in ("execution_secs", "step_secs"):
        values = timing[kind]
        assert 0 < values["p50"] <= values["p95"] <= values["p99"]
    assert timing["step_secs"]["p50"] < timing["execution_secs"]["p50"]


def test_a_run_within_a_hook_has_a_time_of_its_own():
    inner = []

    class Nested(Hook):
        def on_epoch_end(self, info):
            inner.append(measured_fit(make_dataset(4), hooks=[SlowHook()])[0])

    outer, wall_secs = measured_fit(make_dataset(4), hooks=[Nested()], config={"epochs": 1})
    assert_sums_to(outer, wall_secs)
    assert "hooks/SlowHook" in inner[0]["parts"]
    assert "hooks/SlowHook" not in outer["parts"]
    assert secs_of(outer, "hooks/Nested") >= inner[0]["wall_secs"]


def test_a_hook_can_name_a_part_of_its_own():
    class Busy(Hook):
        def on_epoch_end(self, info):
            with part("plots"):
                time.sleep(PLANTED_SECS)

    timing, _ = measured_fit(make_dataset(4), hooks=[Busy()])
    assert secs_of(timing, "plots") >= 2 * PLANTED_SECS
    assert secs_of(timing, "hooks/Busy") < PLANTED_SECS
    with part("nobody counts"):
        pass


def test_nothing_stays_current_after_a_run():
    seen = []
    timing, _ = measured_fit(make_dataset(4), hooks=[SlowHook()])
    with part("later"):
        seen.append("later")
    assert seen == ["later"]
    assert "later" not in timing["parts"]
    assert isinstance(part("later"), contextlib.nullcontext)
