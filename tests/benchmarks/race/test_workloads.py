"""Tasks go to the processes of the arms as JSON, and data is in whole batches."""

import dataclasses

import pytest

from benchmarks.race import preparation
from benchmarks.race.workloads import WORKLOADS, Task


def test_a_task_comes_back_from_json(task):
    other = dataclasses.replace(task, precision="mixed_bfloat16", jit_compile=None, seed=3)
    assert Task.from_dict(other.to_dict()) == other


def test_a_partial_batch_is_an_error(tmp_path):
    workload = dataclasses.replace(WORKLOADS["tiny"], num_examples=33)
    with pytest.raises(ValueError, match="the last batch would be partial"):
        preparation.prepare(workload, tmp_path)
