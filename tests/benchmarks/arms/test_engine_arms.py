"""The arms of the engine, in this process: the race itself is in test_throughput.py."""

import dataclasses

import pytest

from benchmarks.arms import engine_free
from benchmarks.race import preparation
from benchmarks.race.workloads import WORKLOADS, Task
from gradloop.data import pipeline
from gradloop.engine.tuning.choice import Tuning


@pytest.fixture
def task(tmp_path):
    workload = dataclasses.replace(WORKLOADS["tiny"], num_examples=64)
    preparation.prepare(workload, tmp_path)
    return Task(workload=workload, directory=tmp_path, jit_compile=None)


def test_engine_free_trains_with_what_tune_found(task, monkeypatch):
    found = {"prefetch": 2, "input": "streamed", "steps_per_execution": 2}
    monkeypatch.setattr(engine_free, "tune", lambda *args, **kwargs: Tuning(fast=found))
    prefetches, make_dataset = [], pipeline.make_dataset

    def recorded(*args, prefetch, **kwargs):
        prefetches.append(prefetch)
        return make_dataset(*args, prefetch=prefetch, **kwargs)

    monkeypatch.setattr(pipeline, "make_dataset", recorded)
    arm = engine_free.Arm(task)
    assert prefetches == [2]
    assert {**arm.settings, **found, "numerics": "fast"} == arm.settings
    assert arm.bits_of is None
    assert 0 < arm.run(1) < 3
