"""Workers of `train.py --strategy multi_worker`: equal bits, and an end in time in any case."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gradloop.usage import EXIT_PEERS_LOST
from tests.cli.runs import ROOT, SMALL, read

pytestmark = pytest.mark.multi_worker

TRAIN = [
    *SMALL, "--limit_train_batches", "40", "--validation_steps", "4", "--epochs", "3",
    "--run_dir", "run",
]  # fmt: skip
TWO = ["--strategy", "multi_worker", "--num_workers", "2"]
MAX_SECS = 120


@pytest.fixture(autouse=True)
def fresh_keras():
    """Replaces conftest's: Keras runs in other processes."""


class Command:
    """`train.py` in a process of its own, in a folder of its own."""

    def __init__(self, folder, *flags, max_file_blocks=None, **environment):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.errors = folder / "errors"
        environment = {k: v for k, v in os.environ.items() if k != "TF_CONFIG"} | environment
        command = [sys.executable, str(ROOT / "train.py"), *flags]
        if max_file_blocks is not None:
            command = ["sh", "-c", f'ulimit -f {max_file_blocks}; exec "$@"', "sh", *command]
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=errors
            )

    @property
    def run_dir(self):
        return self.folder / "run"

    def workers(self):
        """Returns the process of each worker that runs, by its index."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, StopIteration):
                if f"PPid:\t{self.process.pid}\n" not in (path / "status").read_text():
                    continue
                variables = (path / "environ").read_text().split("\0")
                text = next(v for v in variables if v.startswith("TF_CONFIG="))
                index = json.loads(text.partition("=")[2])["task"]["index"]
                found[index] = int(path.name)
        return found

    def wait_for(self, condition):
        deadline = time.monotonic() + MAX_SECS
        while not condition():
            assert self.process.poll() is None, self.errors.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def wait_for_step(self, num_steps):
        """Waits until a checkpoint of this step is there, or of a later one."""

        def is_there():
            names = (path.stem for path in self.run_dir.glob("checkpoints/ckpt-*.npz"))
            return any(int(name.removeprefix("ckpt-")) >= num_steps for name in names)

        self.wait_for(is_there)

    def strike(self, index, number):
        os.kill(self.workers()[index], number)

    def end(self):
        """Returns the exit code and what was written to stderr."""
        return self.process.wait(MAX_SECS), self.errors.read_text()


@pytest.fixture
def train(tmp_path):
    """Starts commands, and kills those that a failed test leaves behind, with their workers."""
    commands = []

    def start(*flags, folder="one", **environment):
        commands.append(Command(tmp_path / folder, *flags, **environment))
        return commands[-1]

    yield start
    for command in commands:
        command.process.kill()
        command.process.wait()


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    """The summary of two replicas in one process."""
    command = Command(
        tmp_path_factory.mktemp("mirrored"), *TRAIN, "--strategy", "mirrored", "--num_replicas", "2"
    )
    assert command.end()[0] == 0
    return read(command.run_dir)


def check_equal(run_dir, expected):
    summary = read(run_dir)
    for name in ("status", "num_steps", "weights_sha256", "history", "test_logs"):
        assert summary[name] == expected[name], name


def test_a_chief_and_a_worker_that_are_killed_leave_the_bits_of_mirrored(train, mirrored):
    command = train(*TRAIN, *TWO)
    command.wait_for_step(40)
    command.strike(1, signal.SIGKILL)
    command.wait_for_step(80)
    command.wait_for(lambda: len(command.workers()) == 2)
    command.strike(0, signal.SIGKILL)
    code, errors = command.end()
    assert code == 0, errors
    for index, number in ((1, 1), (0, 2)):
        assert f"worker {index} was killed by SIGKILL" in errors
        assert f"(restart {number} of 3)" in errors
    check_equal(command.run_dir, mirrored)


def test_a_signal_to_one_worker_saves_and_ends_all_and_the_run_goes_on(train, mirrored):
    command = train(*TRAIN, *TWO)
    command.wait_for_step(40)
    command.strike(1, signal.SIGTERM)
    code, errors = command.end()
    assert code == 143, errors
    assert read(command.run_dir)["status"] == "interrupted"
    assert "start again" not in errors
    code, errors = train(*TRAIN, *TWO, "--resume", "auto").end()
    assert code == 0, errors
    check_equal(command.run_dir, mirrored)


def test_a_worker_that_never_starts_is_not_waited_for_without_end(train):
    cluster = {"worker": ["127.0.0.1:47201", "127.0.0.1:47202"]}
    config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}})
    command = train(
        *TRAIN, "--strategy", "multi_worker", "--start_secs", "3", TF_CONFIG=config
    )  # fmt: skip
    code, errors = command.end()
    assert code == EXIT_PEERS_LOST, errors
    line = next(line for line in errors.splitlines() if "start_secs" in line)
    assert "worker 0 of 2 (127.0.0.1:47201, 127.0.0.1:47202)" in line
    assert "in make_strategy" in errors.partition(line)[2]
    assert not command.run_dir.exists()


def test_a_worker_that_stands_still_ends_the_others(train):
    command = train(*TRAIN, *TWO, "--hang_secs", "3", "--start_secs", "60", "--max_restarts", "0")
    command.wait_for_step(40)
    began = time.monotonic()
    command.strike(1, signal.SIGSTOP)
    code, errors = command.end()
    assert code == EXIT_PEERS_LOST, errors
    assert time.monotonic() - began < 60
    assert "worker 0 of 2" in errors and f"exit code {EXIT_PEERS_LOST}" in errors


def test_no_room_for_the_chiefs_checkpoints_costs_nothing_but_these(train, mirrored):
    command = train(*TRAIN, *TWO, max_file_blocks=200)
    code, errors = command.end()
    assert code == 0, errors
    assert not list(command.run_dir.glob("checkpoints/*.npz"))
    assert errors.count("Training goes on") == 1 and "start again" not in errors, errors
    check_equal(command.run_dir, mirrored)
