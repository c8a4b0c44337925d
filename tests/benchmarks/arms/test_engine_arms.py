"""The arms of the engine, in this process: the race itself is in test_throughput.py."""

import dataclasses

import pytest

from benchmarks.arms import (
    TooSlow,
    engine_free,
    engine_tuned,
    engine_xla,
    keras_fit_tuned,
    keras_fit_xla,
    tf_runtime,
)
from benchmarks.race import preparation, process
from benchmarks.race.workloads import WORKLOADS, Task
from gradloop.data import pipeline
from gradloop.engine.tuning import search
from gradloop.engine.tuning.choice import Bits


@pytest.fixture
def task(tmp_path):
    workload = dataclasses.replace(WORKLOADS["tiny"], num_examples=64)
    preparation.prepare(workload, tmp_path)
    return Task(workload=workload, directory=tmp_path, jit_compile=None)


def test_engine_free_trains_with_what_tune_found(task, monkeypatch):
    found = {"prefetch": 2, "input": "streamed", "steps_per_execution": 2, "intra_op_threads": 1}
    monkeypatch.setattr(engine_free.Arm, "find_settings", staticmethod(lambda task: (found, [])))
    threads, prefetches, make_dataset = [], [], pipeline.make_dataset
    monkeypatch.setattr(tf_runtime, "set_threads", lambda **asked: threads.append(asked))

    def recorded(*args, prefetch, **kwargs):
        prefetches.append(prefetch)
        return make_dataset(*args, prefetch=prefetch, **kwargs)

    monkeypatch.setattr(pipeline, "make_dataset", recorded)
    arm = engine_free.Arm(task)
    assert prefetches == [2]
    assert threads == [{"intra_op_threads": 1, "inter_op_threads": None}]
    assert {**arm.settings, **found, "numerics": "fast"} == arm.settings
    assert arm.bits_of is None
    assert 0 < arm.run(1) < 3


@pytest.mark.slow
def test_arms_of_one_process_have_the_threads_that_the_first_one_found(task):
    code = (
        "import dataclasses, tensorflow as tf; from benchmarks.arms import engine_free; "
        f"from benchmarks.race.workloads import Task; task = Task.from_dict({task.to_dict()!r}); "
        "arm = engine_free.Arm(task, {'intra_op_threads': 1}); arm.run(1); "
        "engine_free.Arm(dataclasses.replace(task, dropout=False), arm.found).run(1); "
        "print(tf.config.threading.get_intra_op_parallelism_threads())"
    )
    assert process.run_python(code, task) == 1


def test_xla_that_is_hopeless_is_too_slow_for_a_race(task, monkeypatch):
    measured = [{"note": "given up: steps in XLA are 9.0 times slower"}]
    monkeypatch.setattr(engine_tuned.Arm, "find_settings", lambda task: ({}, measured))
    with pytest.raises(TooSlow, match=r"9\.0 times slower"):
        engine_xla.Arm(task)


def test_where_fit_gives_xla_up_no_settings_are_searched(task, monkeypatch):
    def give_up(task):
        raise TooSlow("4 steps took 9 s with XLA, 1 s without")

    monkeypatch.setattr(keras_fit_xla, "probe", give_up)
    found, (row,) = engine_xla.Arm(task, {}).tune()
    assert not found
    assert row["note"] == "given up: 4 steps took 9 s with XLA, 1 s without"


@pytest.mark.slow
def test_engine_free_tries_threads_in_processes(task, monkeypatch):
    few = {Bits.FREE: ({"numerics": "fast"}, (({},), ({"intra_op_threads": 1},)))}
    monkeypatch.setattr(search, "CLASSES", few)
    found, measured = engine_free.Arm(task, {}).tune()
    assert [one["changes"] for one in measured if one["gain"]] == [
        {},
        {"numerics": "fast"},
        {"numerics": "fast", "intra_op_threads": 1},
    ]
    assert found in ({}, {"intra_op_threads": 1})


@pytest.mark.slow
def test_engine_tuned_has_the_fastest_settings_with_the_bits_of_fit(task, monkeypatch):
    monkeypatch.setattr(engine_tuned.Arm, "tune_secs", 0.0)  # time for those in processes alone
    found, tried = engine_tuned.Arm(task, {}).tune()
    measured = [one["changes"] for one in tried if one["gain"]]
    assert measured == [{}, {"inter_op_threads": 1}, {"intra_op_threads": 1}]
    assert found in measured
    arm = engine_tuned.Arm(task, {"steps_per_execution": 2})
    assert arm.bits_of == "keras_fit"
    assert arm.settings["steps_per_execution"] == 2


def test_tuned_fit_may_have_a_whole_epoch_in_an_execution():
    assert keras_fit_tuned.executions(2) == [1, 2]
    assert keras_fit_tuned.executions(50) == [1, 8, 32, 50]
    assert keras_fit_tuned.executions(1875) == [1, 8, 32, 128, 512]
