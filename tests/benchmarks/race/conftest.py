"""A race of fake arms on two small weights."""

import sys

import numpy as np
import pytest

from benchmarks.race import correctness, harness, weights
from benchmarks.race.workloads import WORKLOADS, Task


@pytest.fixture
def fake():
    """Name of a fake arm -> its module."""
    return lambda name: f"tests.benchmarks.race.fake_arms.{name}"


@pytest.fixture
def task(tmp_path):
    weights.save(tmp_path / "initial.npz", [np.ones((2, 3), np.float32), np.zeros(3, np.float32)])
    return Task(workload=WORKLOADS["tiny"], directory=tmp_path)


@pytest.fixture
def race(task, fake):
    """Races fake arms, checks them, and returns their results by name."""

    def run(*arms, report=lambda line: None, task=task, **plan):
        plan = {"num_repeats": 2, "timeout_secs": 60.0, "pause_secs": 0.0, **plan}
        pythons = dict.fromkeys(map(fake, arms), sys.executable)
        outcome = harness.race(task, pythons, harness.Plan(**plan), report)
        initial = task.directory / "initial.npz"
        correctness.void_wrong_arms(outcome.results, initial, reference_name="good")
        run.stopped_by = outcome.stopped_by
        return dict(zip(arms, outcome.results, strict=True))

    return run
