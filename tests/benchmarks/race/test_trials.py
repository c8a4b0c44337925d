"""Arms that take turns in processes of their own, to find the fastest number of threads."""

import dataclasses

import pytest

from benchmarks.race import trials
from tests.benchmarks.race.fake_arms import threaded


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    monkeypatch.setattr(trials, "PAUSE_SECS", 0.0)


@pytest.mark.parametrize(("seed", "fastest"), [(0, None), (threaded.SLOWER_BY_DEFAULT, 1)])
def test_the_faster_number_of_threads_is_found(seed, fastest, fake, task):
    found = trials.find_num_threads(fake("threaded"), dataclasses.replace(task, seed=seed))
    assert found["num_threads"] == fastest
    assert [one["num_threads"] for one in found["tried"]] == [None, 1]
    assert [len(one["steps_per_sec"]) for one in found["tried"]] == [trials.NUM_ROUNDS] * 2


def test_speeds_are_steps_a_second(fake, task):
    with trials.started(fake("threaded"), task, {"num_threads": 1}) as trial:
        trial.warm_up()
        trial.measure()
        trial.measure(secs=0.2)
    # Of two hundredths of a second an epoch.
    for speed in trial.speeds:
        assert 0.15 < speed / (task.workload.steps_per_epoch / 0.02) <= 1


def test_on_a_gpu_no_threads_are_tried(fake, task):
    found = trials.find_num_threads(fake("raising"), dataclasses.replace(task, device="gpu"))
    assert found == {"num_threads": None, "tried": []}


def test_an_arm_that_fails_says_why(fake, task):
    fails = pytest.raises(OSError, match="no_such_framework")
    with trials.started(fake("missing"), task, {}) as trial, fails:
        trial.warm_up()
