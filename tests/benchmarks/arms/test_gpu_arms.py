"""The arms of `benchmarks.gpu`, on a CPU: what does not need the GPU itself."""

import dataclasses

import pytest

from benchmarks.gpu_arms import engine, engine_profile, keras_fit
from benchmarks.race import preparation
from benchmarks.race.workloads import WORKLOADS, Task

NUM_STEPS = 64
SHARES = {"GPU:0": {"idle_share": 0.5, "reduce_share": 0.0}}


@pytest.fixture
def task(tmp_path):
    workload = dataclasses.replace(WORKLOADS["tiny"], num_examples=32 * NUM_STEPS)
    preparation.prepare(workload, tmp_path)
    return Task(workload=workload, directory=tmp_path)


def test_the_profiled_engine_keeps_its_executions(task, monkeypatch):
    traces = []

    def shares(trace):
        traces.append(trace)
        return SHARES

    monkeypatch.setattr(engine_profile, "device_shares", shares)
    monkeypatch.setattr(
        engine_profile.Arm, "_config_values", lambda self: {"steps_per_execution": 8}
    )
    arm = engine_profile.Arm(task)
    assert 0 < arm.run(1) < 3
    assert arm.settings["profile"] == SHARES
    # From step 33 on, in executions of 8, until 20 steps are done.
    assert sorted(traces[0].steps) == [33, 41, 49]


def test_the_profiled_engine_says_so_without_a_gpu(task):
    with pytest.raises(RuntimeError, match="nothing of a GPU"):
        engine_profile.Arm(task).run(1)


@pytest.mark.parametrize("arm", [engine, keras_fit])
def test_xla_in_the_replicas_is_the_engines_alone_and_has_bits_of_its_own(arm, task):
    for mirrors in (False, True):
        made = arm.Arm(dataclasses.replace(task, jit_compile=True, mirrors=mirrors))
        assert made.settings["jit_compile"] is (arm is engine or not mirrors)
        assert (made.bits_of == "keras_fit") is (arm is keras_fit or not mirrors)
