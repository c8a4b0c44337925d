"""The race: by turns, in processes of their own, and whatever an arm does, it ends."""

import dataclasses
import os
import sys
import time

import numpy as np
import pytest

from benchmarks.race import correctness, harness, process, weights
from benchmarks.race.workloads import WORKLOADS, Task

GOOD = "tests.benchmarks.fake_arms.good"


def fake(name):
    return f"tests.benchmarks.fake_arms.{name}"


@pytest.fixture(autouse=True)
def fresh_keras():
    """Replaces conftest's: the arms here are NumPy's alone."""


@pytest.fixture
def task(tmp_path):
    weights.save(tmp_path / "initial.npz", [np.ones((2, 3), np.float32), np.zeros(3, np.float32)])
    return Task(workload=WORKLOADS["tiny"], directory=tmp_path)


@pytest.fixture
def race(task, monkeypatch):
    monkeypatch.setattr(harness, "_PAUSE_SECS", 0.0)
    monkeypatch.setattr(process, "_STOP_SECS", 2.0)

    def run(*arms, report=lambda line: None, **plan):
        plan = harness.Plan(**{"num_repeats": 2, "timeout_secs": 60.0, **plan})
        results = harness.race(task, dict.fromkeys(map(fake, arms), sys.executable), plan, report)
        correctness.void_wrong_arms(results, task.directory / "initial.npz", GOOD)
        return dict(zip(arms, results, strict=True))

    return run


def test_arms_run_by_turns_there_and_back(race):
    lines = []
    race("good", "near_loss", report=lines.append)
    turns = [line.rpartition(".")[2] for line in lines if line.startswith("round")]
    assert turns == ["good", "near_loss", "near_loss", "good", "good", "near_loss"]


def test_warm_ups_are_kept_apart(race):
    result = race("good", num_repeats=3, num_warmups=2, num_epochs=4)["good"]
    assert (len(result.warmup_secs), len(result.secs)) == (2, 3)
    assert (len(result.losses), len(result.weights)) == (5, 5)
    assert (result.status, result.settings) == ("ok", {"seed": 0})
    assert result.peak_memory_bytes > 2**20
    assert result.setup_secs > 0
    assert "numpy" in result.versions
    # 5 runs of 4 epochs, of which each adds an eighth.
    np.testing.assert_array_equal(weights.load(result.weights[-1])[1], np.full(3, 2.5))


def test_each_arm_has_a_process_of_its_own(race):
    lines = []
    results = race("good", "missing", report=lines.append)
    assert results["good"].is_ok
    assert "no_such_framework" not in sys.modules


def test_wrong_weights_are_void(race):
    result = race("good", "wrong_weights")["wrong_weights"]
    assert result.status == "void"
    assert result.reason == (
        "other bits than fit: after run 1, weight 0 of shape (2, 3) differs by up to 9.5e-07"
    )


def test_a_wrong_loss_is_void(race):
    result = race("good", "wrong_loss")["wrong_loss"]
    assert result.status == "void"
    assert result.reason == "mean loss 0.515, more than 2 % from fit's 0.5"


def test_a_near_loss_and_other_bits_pass_an_arm_that_claims_none(race):
    assert race("good", "near_loss")["near_loss"].is_ok


def test_nothing_trained_is_void(race):
    result = race("good", "idle")["idle"]
    assert (result.status, result.reason.split(":")[0]) == ("void", "nothing was trained")


def test_without_fit_nothing_is_correct(race):
    result = race("near_loss", "crashing")["near_loss"]
    assert (result.status, result.reason.split(":")[0]) == ("void", "nothing to compare with")


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("missing", "not_installed", "No module named 'no_such_framework'"),
        ("unable", "not_implemented", "no model 'dense'"),
        ("raising", "failed", "ValueError: a fault"),
        ("crashing", "failed", "the process ended (code 3): out of everything"),
        ("absent", "failed", "ModuleNotFoundError: No module named 'tests.benchmarks.fake"),
    ],
)
def test_an_arm_that_fails_leaves_the_race_with_one_line(race, name, status, reason):
    results = race("good", name)
    assert results[name].status == status
    assert results[name].reason.startswith(reason)
    assert "\n" not in results[name].reason
    assert results["good"].is_ok
    assert len(results["good"].secs) == 2


def test_an_arm_that_hangs_is_ended_with_its_children(race, task):
    results = race("good", "hanging", timeout_secs=3.0)
    assert results["hanging"].status == "failed"
    assert results["hanging"].reason.startswith("no answer in time")
    assert results["good"].is_ok
    assert is_gone(int((task.directory / "child.txt").read_text()))


def test_an_interruption_ends_all_processes(task, monkeypatch):
    monkeypatch.setattr(harness, "_PAUSE_SECS", 0.0)
    started = []

    class Recorded(process.Worker):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            started.append(self._process)

    def interrupt(line):
        if line.startswith("round 2"):
            raise KeyboardInterrupt

    monkeypatch.setattr(harness, "Worker", Recorded)
    arms = {fake(name): sys.executable for name in ("good", "near_loss")}
    with pytest.raises(KeyboardInterrupt):
        harness.race(task, arms, harness.Plan(num_repeats=2), interrupt)
    assert len(started) == 2
    assert all(worker.returncode is not None for worker in started)


def test_an_interpreter_that_is_not_there_is_named(task):
    result, *_ = harness.race(task, {GOOD: "/no/python"}, harness.Plan(), lambda line: None)
    assert (result.status, result.reason) == (
        "failed", "cannot start /no/python: No such file or directory",
    )  # fmt: skip


def test_time_that_runs_out_leaves_five_repeats(race):
    assert len(race("good", num_repeats=9, max_secs=0.0)["good"].secs) == harness.MIN_REPEATS


def test_only_the_last_weights_are_read_where_nobody_measures_accuracy(race):
    result = race("good", keeps_all_weights=False)["good"]
    assert len(result.weights) == 1
    assert result.is_ok


def test_a_task_comes_back_from_json(task):
    other = dataclasses.replace(task, precision="mixed_bfloat16", jit_compile=None, seed=3)
    assert Task.from_dict(other.to_dict()) == other


def is_gone(pid):
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            # Ended, but its new parent has not asked for its code yet.
            with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False
