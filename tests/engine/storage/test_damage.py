"""Checkpoints of another model or with any damage are refused and named; a kill loses nothing."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gradloop
from gradloop.engine.storage import checkpoint
from gradloop.engine.storage.checkpoint import CheckpointError
from tests.engine.storage.states import all_bytes, fake_state


def _message(path, state):
    before = all_bytes(state)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.restore(path, state)
    assert all_bytes(state) == before, "something was assigned before all was verified"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_model_is_refused_with_the_variables_that_differ(tmp_path):
    ones = np.ones((2, 3), "float32")
    path = checkpoint.save(tmp_path, fake_state(a=ones, b=ones, c=ones, d=ones))
    zeros = np.zeros((2, 3), "float32")
    message = _message(path, fake_state(a=zeros, b=zeros[:1], c=zeros.astype("float16"), e=zeros))
    assert "missing in the file: e;" in message
    assert "only in the file: d;" in message
    assert "another shape: b ((2, 3), here (1, 3));" in message
    assert "another dtype: c (float32, here float16)" in message
    assert str(path) in message


def test_many_differences_are_counted_not_listed(tmp_path):
    path = checkpoint.save(tmp_path, fake_state(**{f"v{i}": np.ones(1) for i in range(9)}))
    assert "only in the file: v0, v1, v2 and 6 more" in _message(path, fake_state(w=np.ones(1)))


def test_truncated_garbage_missing_and_pickled_files_are_named(tmp_path):
    state = fake_state(a=np.arange(100, dtype="float32"))
    good = checkpoint.save(tmp_path, state).read_bytes()
    bad = tmp_path / "bad.npz"
    for content in (b"", b"garbage" * 50, good[: len(good) // 2], good[:-1]):
        bad.write_bytes(content)
        assert str(bad) in _message(bad, state)
    np.savez(bad, metadata=np.array([{"format": 1}], dtype=object))
    assert "allow_pickle=False" in _message(bad, state)
    np.savez(bad, weights=np.ones(3))
    assert "metadata" in _message(bad, state)
    assert "there is no checkpoint" in _message(tmp_path / "none.npz", state)


def test_a_flipped_bit_is_found_or_does_no_harm(tmp_path):
    state = fake_state(a=np.arange(50, dtype="float32"), b=np.ones((), "int64"))
    path = checkpoint.save(tmp_path, state)
    good = path.read_bytes()
    expected = checkpoint.load(path)
    rng = random.Random(0)
    num_found = 0
    for _ in range(400):
        content = bytearray(good)
        content[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        try:
            loaded = checkpoint.load(path)
        except CheckpointError:
            num_found += 1
        else:  # A time stamp or the like.
            assert loaded.progress == expected.progress
            assert _arrays(loaded) == _arrays(expected)
    assert num_found > 200


def _arrays(loaded):
    return {name: [v.tobytes() for v in values] for name, values in loaded.values.items()}


def test_the_digest_catches_an_array_that_was_replaced(tmp_path):
    path = checkpoint.save(tmp_path, fake_state(a=np.ones(3, "float32")))
    with np.load(path) as file:
        arrays = dict(file)
    arrays["replica0/a"] = np.full(3, 2, "float32")
    np.savez(path, **arrays)
    with pytest.raises(CheckpointError, match="other bytes in a"):
        checkpoint.load(path)


def test_a_format_of_the_future_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    path = checkpoint.save(tmp_path, fake_state(a=np.ones(3)))
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="has format 2; this version reads format 1"):
        checkpoint.load(path)


def test_latest_skips_damaged_files_and_says_so(tmp_path, capsys):
    assert checkpoint.latest(tmp_path / "none") is None
    for num_steps in (9, 10, 100):
        checkpoint.save(tmp_path, fake_state(num_steps, a=np.full(3, num_steps)))
    assert checkpoint.latest(tmp_path).name == "ckpt-100.npz"
    (tmp_path / "ckpt-100.npz").write_bytes(b"PK")
    (tmp_path / "ckpt-999-old.npz").write_bytes(b"not ours")
    assert checkpoint.latest(tmp_path).name == "ckpt-10.npz"
    captured = capsys.readouterr()
    assert "ckpt-100.npz" in captured.err and captured.out == ""
    state = fake_state(a=np.zeros(3, "int64"))
    assert checkpoint.restore(tmp_path, state).name == "ckpt-10.npz"
    assert state.progress.num_steps_completed == 10


def test_a_directory_without_an_intact_checkpoint_is_an_error_to_restore(tmp_path):
    (tmp_path / "ckpt-1.npz").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="no intact checkpoint in"):
        checkpoint.restore(tmp_path, fake_state(a=np.zeros(3)))


def test_retain_keeps_the_newest_by_number_and_clears_leftovers(tmp_path):
    for num_steps in (1, 2, 10, 9):
        checkpoint.save(tmp_path, fake_state(num_steps, a=np.zeros(3)))
    (tmp_path / "ckpt-11.npz.123.tmp").write_bytes(b"half")
    (tmp_path / "notes.tmp").write_bytes(b"not ours")
    removed = checkpoint.retain(tmp_path, 2)
    assert sorted(p.name for p in removed) == ["ckpt-1.npz", "ckpt-2.npz"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ckpt-10.npz", "ckpt-9.npz", "notes.tmp"]
    with pytest.raises(ValueError, match="1 or more, not 0"):
        checkpoint.retain(tmp_path, 0)


def test_an_unwritable_directory_is_a_value_error_with_the_fix(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="Name another directory"):
        checkpoint.save(tmp_path / "file" / "checkpoints", fake_state(a=np.zeros(3)))


@pytest.mark.parametrize("moment", ["gradloop.files.os.fsync", "gradloop.files.os.replace"])
def test_an_interrupt_before_the_rename_leaves_the_old_file(tmp_path, monkeypatch, moment):
    path = checkpoint.save(tmp_path, fake_state(5, a=np.zeros(3)))
    before = path.read_bytes()

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(moment, die)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, fake_state(5, a=np.ones(3)))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


_SAVER = """
import dataclasses, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from gradloop.engine.storage import checkpoint

@dataclasses.dataclass
class Progress:
    num_steps_completed: int = 7

class Variable:
    value = np.zeros(300_000)

class State:
    progress = Progress()
    def named_variables(self):
        return [("a", Variable)]

for number in range(100_000):
    Variable.value = np.full(300_000, float(number))
    checkpoint.save(sys.argv[2], State())
    if number == 0:
        print("ready", flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_sigkill_at_any_time_leaves_an_intact_file(tmp_path):
    root = Path(gradloop.__file__).parents[1]
    for attempt in range(5):
        directory = tmp_path / str(attempt)
        command = [sys.executable, "-c", _SAVER, str(root), str(directory)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(random.Random(attempt).uniform(0.01, 0.1))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        (array,) = checkpoint.load(directory / "ckpt-7.npz").values["a"]
        assert (array == array[0]).all()
        shutil.rmtree(directory)


def test_checkpoints_of_a_longer_run_are_refused(tmp_path):
    (tmp_path / "ckpt-10.npz").touch()
    checkpoint.check_none_beyond(tmp_path, 10)
    checkpoint.check_none_beyond(tmp_path / "nowhere", 0)
    with pytest.raises(ValueError, match=r"ckpt-10\.npz is from a run that went further"):
        checkpoint.check_none_beyond(tmp_path, 9)
