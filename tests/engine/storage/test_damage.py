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
from gradloop.engine.storage import format as format_lib
from gradloop.engine.storage.format import CheckpointError, load
from tests.engine.storage.states import all_bytes, fake_state, read_entries, write_entries


def message_of(path, state):
    before, progress = all_bytes(state), state.progress
    with pytest.raises(CheckpointError) as caught:
        checkpoint.restore(path, state)
    assert all_bytes(state) == before, "something was assigned before all was verified"
    assert state.progress == progress
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_model_is_refused_with_the_variables_that_differ(tmp_path):
    ones = np.ones((2, 3), "float32")
    path = checkpoint.save(tmp_path, fake_state(a=ones, b=ones, c=ones, d=ones))
    zeros = np.zeros((2, 3), "float32")
    message = message_of(path, fake_state(a=zeros, b=zeros[:1], c=zeros.astype("float16"), e=zeros))
    assert "missing in the file: e;" in message
    assert "only in the file: d;" in message
    assert "another shape: b ((2, 3), here (1, 3));" in message
    assert "another dtype: c (float32, here float16)" in message
    assert str(path) in message


def test_many_differences_are_counted_not_listed(tmp_path):
    path = checkpoint.save(tmp_path, fake_state(**{f"v{i}": np.ones(1) for i in range(9)}))
    assert "only in the file: v0, v1, v2 and 6 more" in message_of(path, fake_state(w=np.ones(1)))


def test_truncated_garbage_missing_and_pickled_files_are_named(tmp_path):
    state = fake_state(a=np.arange(100, dtype="float32"))
    good = checkpoint.save(tmp_path, state).read_bytes()
    bad = tmp_path / "bad.npz"
    for content in (b"", b"garbage" * 50, good[: len(good) // 2], good[:-1]):
        bad.write_bytes(content)
        assert str(bad) in message_of(bad, state)
    np.savez(bad, metadata=np.array([{"format": 2}], dtype=object))
    assert "another array under metadata" in message_of(bad, state)
    np.savez(bad, weights=np.ones(3))
    assert "no metadata" in message_of(bad, state)
    assert "there is no checkpoint" in message_of(tmp_path / "none.npz", state)


def _arrays(loaded):
    return {name: [v.tobytes() for v in values] for name, values in loaded.values.items()}


def _harms(good, chance):
    """Yields the content of a file after each kind of damage."""
    for _ in range(400):
        content = bytearray(good)
        content[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
        yield content
    for length in range(1, 60):
        start = chance.randrange(len(good) - length)
        yield good[:start] + bytes(length) + good[start + length :]  # a hole
        yield good[:start] + chance.randbytes(length) + good[start + length :]
        yield good[:start] + good[start + length :]  # a gap
        yield good[:start]
        yield good[:start] + good[start : start + length] + good[start:]  # repeated


def test_damage_of_every_kind_is_found_or_does_no_harm(tmp_path):
    state = fake_state(a=np.arange(50, dtype="float32"), b=np.ones((), "int64"))
    state.resumption.restore({"history": {"loss": [0.5, 0.25]}, "best": np.arange(4)})
    path = checkpoint.save(tmp_path, state)
    good, expected = path.read_bytes(), load(path)
    num, num_found = 0, 0
    for num, content in enumerate(_harms(good, random.Random(0)), 1):  # noqa: B007
        path.write_bytes(content)
        try:
            loaded = load(path)
        except CheckpointError:
            num_found += 1
        else:  # A time stamp or the like.
            assert loaded.progress == expected.progress
            assert _arrays(loaded) == _arrays(expected)
            assert loaded.tree["history"] == expected.tree["history"]
            assert loaded.tree["best"].tolist() == [0, 1, 2, 3]
    print(f"{num} damages: {num_found} refused, the others without effect, none loaded wrong")
    assert num_found > num * 0.7


def test_the_digest_catches_an_array_that_was_replaced(tmp_path):
    path = checkpoint.save(tmp_path, fake_state(a=np.ones(3, "float32")))
    arrays, metadata = read_entries(path)
    arrays["replica0/a"] = np.full(3, 2, "float32")
    write_entries(path, arrays, metadata)
    with pytest.raises(CheckpointError, match="other bytes in replica0/a"):
        load(path)


def test_a_format_of_the_future_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(format_lib, "FORMAT", 3)
    path = checkpoint.save(tmp_path, fake_state(a=np.ones(3)))
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="has format 3; this version reads formats 1, 2"):
        load(path)
    # It is not damaged: going back to an older file would lose work without a word.
    checkpoint.save(tmp_path, fake_state(9, a=np.ones(3)))
    path.rename(tmp_path / "ckpt-10.npz")
    with pytest.raises(CheckpointError, match="take a later version"):
        checkpoint.restore(tmp_path, fake_state(a=np.ones(3)))
    assert (tmp_path / "ckpt-10.npz").exists()


def test_an_unwritable_directory_is_a_value_error_with_the_fix(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="Name another directory"):
        checkpoint.save(tmp_path / "file" / "checkpoints", fake_state(a=np.zeros(3)))


_SAVER = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from tests.engine.storage.states import fake_state
from gradloop.engine.storage import checkpoint

state = fake_state(7, a=np.zeros(300_000))
for number in range(100_000):
    state.variables["a"].assign(np.full(300_000, float(number)))
    checkpoint.save(sys.argv[2], state)
    if number == 0:
        print("ready", flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_sigkill_at_any_time_leaves_an_intact_file(tmp_path):
    root = Path(gradloop.__file__).parents[1]
    directory = tmp_path / "run"
    for attempt in range(2):
        command = [sys.executable, "-c", _SAVER, str(root), str(directory)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(random.Random(attempt).uniform(0.01, 0.1))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        (array,) = load(directory / "ckpt-7.npz").values["a"]
        assert (array == array[0]).all()
        shutil.rmtree(directory)
