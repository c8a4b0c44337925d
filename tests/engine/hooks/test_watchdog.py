"""Watchdog: what hangs ends the process with its own code, and what only takes long does not."""

import concurrent.futures
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gradloop import engine
from gradloop.usage import EXIT_HANG
from tests.engine.hooks import hanging_run
from tests.engine.nets import make_config, make_tiny

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def ended():
    """By where it hangs: exit code, output, errors, and when the process ended."""
    places = list(hanging_run.NUM_GOOD)
    with concurrent.futures.ThreadPoolExecutor() as pool:  # both at once, to take half the time
        return dict(zip(places, pool.map(follow, places), strict=True))


def follow(where):
    with subprocess.Popen(
        [sys.executable, hanging_run.__file__, where],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
    ) as process:  # fmt: skip
        suspend_in_a_step(process)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output, errors, time.time()


def suspend_in_a_step(process):
    """Stops the process for longer than the limit, once no graph is traced any more."""
    steps = (line for line in process.stdout if line.startswith("step"))
    assert len(list(itertools.islice(steps, 3))) == 3
    time.sleep(hanging_run.SECS / 16)
    process.send_signal(signal.SIGSTOP)
    time.sleep(2 * hanging_run.SECS)
    process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(("where", "step"), [("training", 12), ("evaluation", 8)])
def test_a_batch_that_never_comes_ends_the_process(where, step, ended):
    exit_code, output, errors, ended_at = ended[where]
    assert exit_code == EXIT_HANG, errors
    last_step_at = max(float(line.split()[1]) for line in output.splitlines())
    assert hanging_run.SECS - 0.1 < ended_at - last_step_at < hanging_run.SECS + 1
    line = next(line for line in errors.splitlines() if line.startswith("gradloop: "))
    assert line.startswith(f"gradloop: {where}") and f"at step {step}," in line
    assert "hang_secs" in line and f"exit code {EXIT_HANG}" in line
    stacks = errors.split(line)[1]
    assert "in endless_wait" in stacks and "in main" in stacks  # the thread that waits, and ours


def test_a_limit_must_be_a_number_of_seconds():
    for secs in (0, -1, None, "60", True, float("nan")):
        with pytest.raises(ValueError, match="secs must be a number above 0"):
            engine.Watchdog(secs)


def watchdogs():
    return [thread for thread in threading.enumerate() if thread.name == "watchdog"]


def test_the_thread_lives_as_long_as_the_run(dataset):
    state, config, dog, seen = make_tiny(), make_config(), engine.Watchdog(60), []
    count = engine.LambdaHook(
        on_execution_end=lambda info: seen.append(len(watchdogs())),
        on_eval_execution_end=lambda info: seen.append(len(watchdogs())),
    )
    engine.fit(state, dataset, config, validation_data=dataset, hooks=[dog, count])
    engine.evaluate(state, dataset, config, hooks=[dog, count])
    assert set(seen) == {1}
    for thread in watchdogs():
        thread.join(timeout=5)
    assert not watchdogs()
