"""The benchmark of a file larger than memory: its limit, its arms without one, and its tables."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ROOT, memory_arms, memory_limited
from benchmarks.race.workloads import Task
from benchmarks.reporting import other_tables
from tests.benchmarks.reporting import made_up

NUM_EXAMPLES = 2 * memory_limited.NUM_DIFFERENT
ALLOWED = 64 * 2**20


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(("share", "dies"), [(0.5, False), (1.5, True)])
def test_a_process_that_asks_for_more_than_a_quarter_of_the_file_gets_no_memory(
    tmp_path, share, dies
):
    with (tmp_path / memory_arms.LARGE).open("wb") as file:
        file.truncate(4 * ALLOWED)
    code = f"""if True:
        import types
        from pathlib import Path
        from benchmarks import memory_arms
        memory_arms.limit_memory(types.SimpleNamespace(directory=Path({str(tmp_path)!r})))
        bytearray({int(ALLOWED * share)})
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "MemoryError" in done.stderr) == ((1, True) if dies else (0, False))


# Keras, of a dataset whose length it does not know.
ends_with_a_warning = pytest.mark.filterwarnings("ignore:Your input ran out of data")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    directory = tmp_path_factory.mktemp("records")
    workload = memory_limited.resize(NUM_EXAMPLES)
    memory_limited.prepare(workload, directory)
    return Task(workload=workload, directory=directory)


@pytest.mark.slow
@ends_with_a_warning
@pytest.mark.parametrize("name", memory_limited.ARMS)
def test_an_arm_trains_the_file_in_each_run(task, name, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # the arm of the engine sets it
    module = importlib.import_module(memory_limited.ARMS[name])
    of_keras = importlib.import_module("benchmarks.memory_arms.keras_fit")
    for one in (module, of_keras):
        monkeypatch.setattr(one, "limit_memory", lambda task: {}, raising=False)
    arm = module.Arm(task)
    before = arm.weights()
    losses = [arm.run(1), arm.run(2)]
    assert 0 < losses[1] < losses[0] < 3.0
    assert not np.array_equal(before[0], arm.weights()[0])


@pytest.mark.slow
@ends_with_a_warning
def test_what_ends_fit_ends_the_run(task, monkeypatch):
    module = importlib.import_module("benchmarks.memory_arms.keras_fit")
    monkeypatch.setattr(module, "limit_memory", lambda task: {})
    arm = module.Arm(task)
    arm._call = module.OneCall(arm._make_dataset("not_there"))
    with pytest.raises(Exception, match="not_there"):
        arm.run(1)


def test_the_tables_show_speed_memory_and_why_an_arm_has_none():
    settings = {"resident_bytes_before": 2**29, "limit_bytes": 2**30}
    results = [
        made_up.result("benchmarks.memory_arms.engine", [0.5] * 5, settings=settings),
        made_up.result("benchmarks.memory_arms.keras_fit", [2.0] * 5, settings=settings),
        made_up.result("benchmarks.memory_arms.keras_fit_tuned", []),
    ]
    results[2].fail("failed", "the process ended (SIGABRT): std::bad_alloc")
    record = memory_limited.describe(results, memory_limited.resize(NUM_EXAMPLES), 2**30)
    text = other_tables.memory_tables(json.loads(json.dumps(record)))
    assert "| engine | ok | 4,096 | 4,096 to 4,096 | 0.00 GiB | 0.50 GiB |" in text.replace(
        "4,100", "4,096"
    )
    assert "- `keras_fit_tuned`: failed: the process ended (SIGABRT): std::bad_alloc" in text
    assert "| engine | keras_fit | 4.00 | 4.00 to 4.00 | faster |" in text
    assert "The file has 1.00 GiB" in text
    assert "may grow by 0.25 GiB" in text


def test_fewer_examples_than_the_small_file_has_are_refused(capsys):
    assert memory_limited.main(["--num_examples", "5"]) == 2
    assert "--num_examples 5: must be 1024 or more" in capsys.readouterr().err
