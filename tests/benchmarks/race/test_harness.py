"""The race: in turn, in processes of their own, and it ends whatever an arm does."""

import os
import sys
import time

import numpy as np
import pytest

from benchmarks.race import harness, process, stopping, weights


@pytest.fixture(autouse=True)
def fresh_keras():
    """Replaces conftest's: the arms here are NumPy's alone."""


def test_arms_run_in_turn_there_and_back(race):
    lines = []
    race("good", "near_loss", report=lines.append)
    turns = [line.rpartition(".")[2] for line in lines if line.startswith("round")]
    assert turns == ["good", "near_loss", "near_loss", "good", "good", "near_loss"]


def test_warm_ups_are_kept_apart(race):
    result = race("good", num_repeats=3, num_warmups=2, num_epochs=4)["good"]
    assert (len(result.warmup_secs), len(result.secs)) == (2, 3)
    assert (len(result.losses), len(result.weights)) == (5, 5)
    assert result.kept_runs == [0, 1, 2, 3, 4]
    assert (result.status, result.settings) == ("ok", {"seed": 0})
    assert result.peak_memory_bytes > 2**20
    assert result.setup_secs > 0
    assert "numpy" in result.versions
    # 5 runs of 4 epochs, each of which adds an eighth.
    np.testing.assert_array_equal(weights.load(result.weights[-1])[1], np.full(3, 2.5))


def test_each_arm_has_a_process_of_its_own(race):
    lines = []
    results = race("good", "missing", report=lines.append)
    assert results["good"].is_ok
    assert "no_such_framework" not in sys.modules


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("missing", "not_installed", "No module named 'no_such_framework'"),
        ("unable", "not_implemented", "no model 'dense'"),
        ("slow", "too_slow", "4 steps took 9 s with XLA, 1 s without"),
        ("raising", "failed", "ValueError: a fault"),
        ("crashing", "failed", "the process ended (code 3): out of everything"),
        ("absent", "failed", "ModuleNotFoundError: No module named 'tests.benchmarks.race.fake"),
    ],
)
def test_an_arm_that_fails_leaves_the_race_with_one_line(race, name, status, reason):
    results = race("good", name)
    assert results[name].status == status
    assert results[name].reason.startswith(reason)
    assert "\n" not in results[name].reason
    assert results["good"].is_ok
    assert len(results["good"].secs) == 2


@pytest.mark.parametrize(("name", "secs"), [("hanging", 3.0), ("hanging_in_a_trial", 15.0)])
def test_an_arm_that_hangs_is_ended_with_its_children(name, secs, race, task):
    results = race("good", name, timeout_secs=secs)
    assert results[name].status == "failed"
    assert results[name].reason.startswith("no answer in time")
    assert results["good"].is_ok
    assert is_gone(int((task.directory / "child.txt").read_text()))


def test_an_interruption_ends_all_processes(task, fake, monkeypatch):
    started = []

    class Recorded(process.Worker):
        def __init__(self, *arguments, **variables):
            super().__init__(*arguments, **variables)
            started.append(self.process)

    def interrupt(line):
        if line.startswith("round 2"):
            raise KeyboardInterrupt

    monkeypatch.setattr(harness, "Worker", Recorded)
    arms = {fake(name): sys.executable for name in ("good", "near_loss")}
    with pytest.raises(KeyboardInterrupt):
        harness.race(task, arms, harness.Plan(num_repeats=2, pause_secs=0.0), interrupt)
    assert len(started) == 2
    assert all(worker.returncode is not None for worker in started)


def test_an_interpreter_that_does_not_exist_is_named(task, fake):
    arms = {fake("good"): "/no/python"}
    result, *_ = harness.race(task, arms, harness.Plan(), lambda line: None).results
    assert (result.status, result.reason) == (
        "failed", "cannot start /no/python: No such file or directory",
    )  # fmt: skip


def test_time_that_runs_out_leaves_five_repeats(race):
    result = race("good", num_repeats=9, max_secs=0.0)["good"]
    assert (len(result.secs), race.stopped_by) == (stopping.MIN_ROUNDS, "max_secs")


def test_of_many_rounds_the_first_weights_and_the_last_are_kept(race):
    result = race("good", "near_loss", num_repeats=9, num_kept=3)["good"]
    assert (len(result.secs), race.stopped_by) == (9, "num_repeats")
    assert result.kept_runs == [0, 1, 2, 9]
    np.testing.assert_array_equal(weights.load(result.weights[-1])[1], np.full(3, 1.25))


def is_gone(pid):
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            # A zombie has ended, but its new parent has not asked for its code yet.
            with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False
