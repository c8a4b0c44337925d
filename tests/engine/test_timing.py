"""Where the time goes: parts sum to the wall time, and what was planted is named."""

import itertools
import re
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.engine import timing as timing_lib
from gradloop.engine.config import TrainConfig
from gradloop.engine.hooks import Hook, SaveCheckpoint, WriteMetrics
from gradloop.engine.loop import fit
from gradloop.engine.state import TrainState
from gradloop.engine.storage.writers import MemoryWriter, MultiWriter
from gradloop.engine.strategy import make_strategy
from gradloop.engine.timing import Samples, Timing, format_line, part

NUM_STEPS, STEPS_PER_EXECUTION, BATCH_SIZE = 16, 2, 8
# A step, or an execution: long beside the moments for which a busy machine takes a thread away.
PLANTED_SECS = 0.05


class Clock:
    """Stands still unless it is told to go on."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


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


# The clock.


def test_a_part_pauses_the_one_outside():
    clock = Clock()
    timing = Timing(clock)
    clock.now += 1
    with timing.part("outer"):
        clock.now += 2
        with timing.part("inner"):
            clock.now += 4
        with timing.part("outer"):
            clock.now += 8
        clock.now += 16
    clock.now += 32
    timing.stop()
    assert timing.secs == {"other": 33, "outer": 26, "inner": 4}
    assert timing.wall_secs == 63


def test_a_part_ends_with_an_exception():
    clock = Clock()
    timing = Timing(clock)
    with pytest.raises(KeyError), timing.part("fails"):
        clock.now += 1
        raise KeyError
    clock.now += 2
    timing.stop()
    assert timing.secs == {"other": 2, "fails": 1}


def test_what_an_evaluation_consists_of_is_evaluation_but_hooks_and_tracing():
    clock = Clock()
    timing = Timing(clock)
    with timing.part("evaluation"):
        for name in ("compute", "metrics", "hooks/A", "tracing"):
            with timing.part(name):
                clock.now += 1
    timing.stop()
    assert timing.secs == {"other": 0, "evaluation": 2, "hooks/A": 1, "tracing": 1}


class Function:
    """Stands for a compiled one: what each call takes, in the graph and of that waiting."""

    def __init__(self, clock, *calls):
        self.num_traces, self._clock, self._calls = 0, clock, iter(calls)

    def __call__(self, iterator, num_steps):
        secs, graph_secs, waited, traces = next(self._calls)
        self._clock.now += secs
        self.num_traces += traces
        self.graph_secs = tf.constant([graph_secs, waited], tf.float64)
        return {}


def test_an_execution_is_dispatch_compute_and_waiting():
    clock = Clock()
    timing = Timing(clock)
    timing.execute(Function(clock, (10.0, 8.0, 3.0, 0)), None, 4)
    timing.stop()
    assert timing.secs == {"other": 0, "dispatch": 2, "compute": 5, "data": 3}
    assert timing.to_dict(4)["parts"]["compute"]["usecs_per_step"] == 5e6 / 4
    assert timing.to_dict(4)["execution_secs"] == {"p50": 10, "p95": 10, "p99": 10}
    assert timing.to_dict(4)["step_secs"]["p99"] == 2.5


def test_the_first_run_of_a_graph_is_tracing_but_for_what_a_run_takes():
    clock = Clock()
    timing = Timing(clock)
    function = Function(clock, (20.0, 9.0, 1.0, 1), (2.0, 2.0, 0.0, 0))
    for num_steps in (3, 2):
        timing.execute(function, None, num_steps)
    timing.stop()
    # 11 s outside the graph; of 8 s in it, 3 steps take 3 s.
    assert timing.secs["tracing"] == 11 + 5
    assert timing.secs["compute"] == 3 + 2
    assert timing.to_dict(5)["execution_secs"]["p99"] == 2


def test_a_part_is_never_negative_though_clocks_differ():
    clock = Clock()
    timing = Timing(clock)
    timing.execute(Function(clock, (1.0, 1.0001, 1.0002, 0)), None, 1)
    timing.stop()
    assert min(timing.secs.values()) == 0
    assert timing.wall_secs == 1


def test_samples_are_thinned_evenly():
    samples = Samples(max_samples=100)
    for value in range(100_000):
        samples.add(value)
    for percent in (0, 25, 50, 95, 100):
        assert samples.percentile(percent) == pytest.approx(1000 * percent, abs=2500)
    assert Samples().percentile(50) is None


# In a run.


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
def test_a_slow_data_set_is_named(size):
    timing, wall_secs = measured_fit(
        make_slow(make_dataset()), config={"steps_per_execution": size}
    )
    assert_sums_to(timing, wall_secs)
    assert largest_beside_compute(timing) == "data"
    # Sleeps may last longer than asked; the steps hide next to nothing of them.
    assert secs_of(timing, "data") > 0.7 * 2 * NUM_STEPS * PLANTED_SECS
    assert secs_of(timing, "compute") < secs_of(timing, "data")


def test_a_slow_data_set_is_named_under_a_strategy():
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


# In words.


def test_line_names_what_is_large_and_the_percentiles():
    clock = Clock()
    timing = Timing(clock)
    for name, secs in {"compute": 930, "data": 40, "hooks/A": 26, "metrics": 4}.items():
        with timing.part(name):
            clock.now += secs
    timing.stop()
    assert format_line(timing.to_dict(1)) == "93 % compute, 4 % data, 3 % hooks/A"
    for secs in itertools.repeat(0.1, 99):
        timing.execution_secs.add(secs)
    timing.execution_secs.add(1.5)
    line = format_line(timing.to_dict(1))
    assert re.search(r"execution p50 100 ms, p95 100 ms, p99 11[34] ms$", line), line


def test_nothing_stays_current_after_a_run():
    measured_fit(make_dataset(4), hooks=[SlowHook()])
    assert timing_lib._current.get() is None
