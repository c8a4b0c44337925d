"""A folder has one process, and a process that is gone holds nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gradloop import lock

ROOT = Path(__file__).parents[2]
HOLD = r"""
import os, sys, time
from pathlib import Path
from gradloop import lock
with lock.locked(Path(sys.argv[1])):
    child = os.fork() if "fork" in sys.argv else None
    os.write(1, f"{child}\n".encode())
    time.sleep(100)
"""


@pytest.fixture(autouse=True)
def fresh_keras():
    """Nothing here touches Keras."""


@pytest.fixture
def hold(tmp_path):
    """Starts a process that holds the folder; returns it and the first line that it prints."""
    started = []

    def start(*more):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path), *more],
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_process_is_told_who_holds_it_and_touches_nothing(tmp_path, hold):
    process, _ = hold()
    before = (tmp_path / "lock").read_bytes()
    with pytest.raises(lock.LockedError) as raised, lock.locked(tmp_path):
        raise AssertionError
    assert f"in use by process {process.pid} on {os.uname().nodename} since 20" in str(raised.value)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("lock", before)]


def test_the_lock_dies_with_its_holder(tmp_path, hold):
    process, _ = hold()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "lock").exists()
    with lock.locked(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_also_if_it_has_forked_processes_that_live_on(tmp_path, hold):
    process, printed = hold("fork")
    child = max(int(printed), int(process.stdout.readline()))  # both have printed
    try:
        process.kill()
        process.wait()
        with lock.locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_file_that_its_holder_removes_in_the_meantime_locks_nobody_out(tmp_path, monkeypatch):
    is_named, seen = lock._is_named, []

    def remove_first(file, path):
        seen.append(path.exists())
        if len(seen) == 1:
            path.unlink()
        return is_named(file, path)

    monkeypatch.setattr(lock, "_is_named", remove_first)
    with lock.locked(tmp_path):
        assert seen == [True, True] and (tmp_path / "lock").exists()


def test_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").symlink_to(tmp_path / "elsewhere" / "file")
    with pytest.raises(ValueError, match=r"lock cannot be opened.*Remove it"):
        lock.locked(tmp_path / "run").__enter__()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("kind", ["system", "file system"])
def test_a_place_without_locks_says_so(tmp_path, monkeypatch, kind):
    def refuse(*args):
        raise OSError(95, "Operation not supported")

    if kind == "system":
        monkeypatch.setattr(lock, "fcntl", None)
    else:
        monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with pytest.raises(lock.NoLock, match="is not locked: "), lock.locked(tmp_path):
        raise AssertionError
