"""Arms that take turns in processes of their own, to find the fastest number of threads."""

import dataclasses
import sys

import pytest

from benchmarks.race import trials
from benchmarks.race.process import WorkerError
from tests.benchmarks.race.fake_arms import threaded


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    monkeypatch.setattr(trials, "PAUSE_SECS", 0.0)


def find(arm, task, seed):
    return trials.find_threads(arm, sys.executable, dataclasses.replace(task, seed=seed))


def test_the_faster_number_of_threads_is_found(fake, task):
    found = find(fake("threaded"), task, threaded.SLOWER_BY_DEFAULT)
    assert found.variables == trials.ONE_THREAD
    assert {name: len(speeds) for name, speeds in found.tried.items()} == {"default": 5, "one": 5}
    assert found.found["setting"] > 0


def test_one_thread_that_is_much_slower_is_not_measured_any_further(fake, task):
    found = find(fake("threaded"), task, seed=0)
    assert found.variables == {}
    assert {name: len(speeds) for name, speeds in found.tried.items()} == {"default": 2, "one": 2}


def test_an_arm_with_bits_keeps_them(fake, task):
    assert find(fake("threaded"), task, threaded.OTHER_BITS).variables == {}


def test_speeds_are_steps_a_second(fake, task):
    with trials.started(fake("threaded"), task, {"setting": 1}) as trial:
        trial.warm_up()
        trial.measure()
        trial.measure(secs=0.2)
    assert trial.found == {"setting": 1}
    # Of two hundredths of a second an epoch.
    for speed in trial.speeds:
        assert 0.15 < speed / (task.workload.steps_per_epoch / 0.02) <= 1


def test_an_arm_that_fails_says_why(fake, task):
    fails = pytest.raises(WorkerError, match="no_such_framework")
    with trials.started(fake("missing"), task) as trial, fails:
        trial.warm_up()


def test_arms_race_with_the_threads_that_were_found(race, fake):
    tries = frozenset({fake("threaded"), fake("unable")})
    results = race("good", "threaded", "unable", tries_threads=tries)
    assert results["threaded"].settings["threads"] == "default"
    assert len(results["threaded"].settings["threads_tried"]["one"]) == 2
    assert "threads" not in results["good"].settings
    assert results["unable"].status == "not_implemented"
