"""A crash at every write, fsync, rename, link and removal of a save leaves a good checkpoint."""

import builtins
import contextlib
import os
import shutil

import numpy as np
import pytest

from gradloop import files
from gradloop.engine.storage import checkpoint
from gradloop.engine.storage.checkpoint_folder import CheckpointFolder
from gradloop.engine.storage.format import load
from gradloop.engine.storage.saves import Saves
from gradloop.engine.storage.snapshot import capture
from tests.engine.storage.states import fake_state


class Crash(BaseException):
    """As a kill: after it nothing of the process happens any more."""


class FaultyDisk:
    """Counts what is done to the disk, and from operation number `crash_at` on does nothing.

    Args:
      crash_at: Number of the first operation that fails, from 0.
      error: What it raises.
      is_final: Whether all later operations fail too.
    """

    def __init__(self, monkeypatch, crash_at, error=Crash, *, is_final=True):
        self.num_operations = 0
        self.names = []
        self.crash_at, self.error, self.is_final = crash_at, error, is_final
        for name in ("fsync", "replace", "link", "unlink", "mkdir"):
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name)))
        monkeypatch.setattr(files, "open", self._open, raising=False)

    def _wrapped(self, function):
        def call(*args, **kwargs):
            self._count(function.__name__)
            return function(*args, **kwargs)

        return call

    def _count(self, name="write"):
        self.names.append(name)
        number, self.num_operations = self.num_operations, self.num_operations + 1
        if number == self.crash_at or (self.is_final and number > self.crash_at):
            raise self.error

    def _open(self, path, mode, **options):
        self._count("open")
        buffering = 0 if "b" in mode else -1
        return FaultyFile(builtins.open(path, mode, buffering, **options), self._count)


class FaultyFile:
    """Writes half of what it is given before it fails."""

    def __init__(self, file, count):
        self._file, self._count = file, count

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, data):
        data = memoryview(data)
        try:
            self._count()
        except BaseException:
            self._file.write(data[: len(data) // 2])
            raise
        return self._file.write(data)


def _state(num_steps):
    state = fake_state(num_steps, a=np.full(40, num_steps, "float32"), b=np.arange(3))
    state.resumption.restore({"best": np.arange(num_steps)})
    return state


def _save(folder, num_steps):
    """A save with all that can belong to it: the best one too, and the oldest removed."""
    saves = Saves(folder, max_to_keep=2, asynchronous=False, is_fatal=True)
    saves.start(capture(_state(num_steps)), is_regular=True, is_best=True)
    assert saves.settle(wait=True)


def _check(path):
    loaded = load(path)
    num_steps = loaded.progress.num_steps_completed
    assert loaded.values["a"][0].tolist() == [num_steps] * 40
    assert loaded.tree["best"].tolist() == list(range(num_steps))
    return num_steps


@pytest.fixture
def before(tmp_path):
    """Two checkpoints, of which the older one is the best."""
    directory = tmp_path / "before"
    folder = CheckpointFolder(directory)
    folder.name_best(folder.save(_state(4)))
    folder.save(_state(5))
    return directory


def _num_operations(before, directory, monkeypatch, num_steps=6):
    shutil.copytree(before, directory)
    with monkeypatch.context() as patch:
        disk = FaultyDisk(patch, 10**9)
        _save(CheckpointFolder(directory), num_steps)
    shutil.rmtree(directory)
    return disk.num_operations


def test_a_file_is_on_the_disk_before_it_has_its_name_and_then_the_name_is(tmp_path, monkeypatch):
    tmp_path.joinpath("run").mkdir()
    with monkeypatch.context() as patch:
        disk = FaultyDisk(patch, 10**9)
        checkpoint.save(tmp_path / "run", _state(6))
    last = disk.names[disk.names.index("fsync") :]
    assert disk.names[disk.names.index("fsync") - 1] == "write"
    assert [name for name in last if name != "unlink"] == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize("num_steps", [6, 5])  # a new file, and one that replaces an old one
def test_a_crash_at_every_operation_leaves_the_old_or_the_new_one(
    before, tmp_path, monkeypatch, num_steps
):
    directory = tmp_path / "run"
    num_operations = _num_operations(before, directory, monkeypatch, num_steps)
    found = []
    for crash_at in range(num_operations):
        shutil.copytree(before, directory)
        with monkeypatch.context() as patch, pytest.raises(Crash):
            FaultyDisk(patch, crash_at)
            _save(CheckpointFolder(directory), num_steps)
        newest = checkpoint.latest(directory)
        found.append(_check(newest))
        assert _check(directory / "best.npz") in (4, found[-1])
        # What was left does not stand in the way of the next save, and is gone after it.
        _save(CheckpointFolder(directory), 7)
        assert _check(checkpoint.latest(directory)) == _check(directory / "best.npz") == 7
        assert not list(directory.glob("*.tmp")) and not (directory / "quarantine").exists()
        shutil.rmtree(directory)
    assert found == sorted(found) and set(found) == {5, num_steps}
    print(f"{num_operations} crash points of the save of step {num_steps} after step 5")


@pytest.mark.filterwarnings("ignore:cannot remove old checkpoints")
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_at_every_operation_leaves_no_half_file(before, tmp_path, monkeypatch, error):
    """As a full disk, or Ctrl-C: the process goes on, and clears up."""
    directory = tmp_path / "run"
    num_operations = _num_operations(before, directory, monkeypatch)
    for crash_at in range(num_operations):
        shutil.copytree(before, directory)
        with monkeypatch.context() as patch:
            FaultyDisk(patch, crash_at, error, is_final=False)
            with contextlib.suppress(OSError, KeyboardInterrupt):
                _save(CheckpointFolder(directory), 6)
        assert _check(checkpoint.latest(directory)) in (5, 6)
        _check(directory / "best.npz")
        leftovers = [path.name for path in directory.glob("*.tmp")]
        # Where the removal itself failed, the next save clears up.
        _save(CheckpointFolder(directory), 7)
        assert len(leftovers) <= 1 and not list(directory.glob("*.tmp"))
        shutil.rmtree(directory)
    print(f"{num_operations} operations that fail with {type(error).__name__}")


def test_a_kill_between_writing_and_naming_the_best_is_mended(before, tmp_path, monkeypatch):
    monkeypatch.setattr(CheckpointFolder, "name_best", lambda *_: (_ for _ in ()).throw(Crash))
    with pytest.raises(Crash):
        _save(CheckpointFolder(before), 6)
    monkeypatch.undo()
    assert _check(before / "best.npz") == 4
    CheckpointFolder(before).mend_best(6)  # as the state of the hook in ckpt-6 tells
    assert _check(before / "best.npz") == 6


def test_without_hard_links_the_best_is_a_copy(before, monkeypatch):
    def fail(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    _save(CheckpointFolder(before), 6)
    assert _check(before / "best.npz") == 6
    assert (before / "best.npz").stat().st_nlink == 1
