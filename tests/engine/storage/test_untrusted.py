"""A file that was made to do harm is refused at once: nothing is assigned, no memory is taken."""

import os
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from gradloop.engine.storage import checkpoint
from gradloop.engine.storage import format as format_lib
from gradloop.engine.storage.format import CheckpointError
from tests.engine.storage.states import fake_state, read_entries, write_entries
from tests.engine.storage.test_damage import message_of


@pytest.fixture
def state():
    state = fake_state(12, **{"model/a": np.arange(4, dtype="float32")})
    state.progress.epoch = state.progress.num_epochs_completed = 3
    state.progress.step, state.progress.steps_per_epoch = 2, 4
    return state


@pytest.fixture
def path(state, tmp_path):
    return checkpoint.save(tmp_path, state)


def _with(path, change):
    arrays, metadata = read_entries(path)
    change(metadata)
    write_entries(path, arrays, metadata)


PROGRESS = {
    "epoch": [-5, None, 2.0, True, "3", 1 << 60, 5, 1],
    "step": [-1, 10**6, 5, None, False, [2]],
    "num_steps_completed": [-1, 1, None, 1e9],
    "num_epochs_completed": [-1, 9, True],
    "num_epochs": [-1, None, "all"],
    "steps_per_epoch": [-4, 1, True, "4"],
}
ATTACKS = [(field, value) for field, values in PROGRESS.items() for value in values]


@pytest.mark.parametrize(("field", "value"), ATTACKS)
def test_an_impossible_progress_is_refused_and_named(path, state, field, value):
    _with(path, lambda metadata: metadata["progress"].update({field: value}))
    message = message_of(path, state)
    named = ("step", "epoch") if "epoch" in field else (field, "step")
    assert any(name in message for name in named)


@pytest.mark.parametrize("progress", [None, [], {}, {"epoch": 0}, 5])
def test_a_progress_of_another_kind_is_refused(path, state, progress):
    _with(path, lambda metadata: metadata.update(progress=progress))
    assert "progress is" in message_of(path, state)


def test_an_unknown_field_of_progress_is_refused(path, state):
    _with(path, lambda metadata: metadata["progress"].update(__class__=0))
    assert "progress is" in message_of(path, state)


DESCRIPTIONS = [
    {"dtype": "object"}, {"dtype": "<f4"}, {"dtype": "f4,f4"}, {"dtype": "str"}, {"dtype": None},
    {"dtype": "float64"}, {"dtype": "int32"}, {"shape": [5]}, {"shape": [-4]}, {"shape": [2, 2]},
    {"shape": 4}, {"shape": [4.0]}, {"shape": [1 << 40]}, {"shape": [True, 4]}, {"shape": None},
    {"digests": []}, {"digests": None}, {"digests": [5]}, {"digests": ["0"]},
    {"digests": ["a", "b"]}, {"sha256": ["0" * 64]},
]  # fmt: skip


@pytest.mark.parametrize("description", DESCRIPTIONS, ids=str)
def test_a_variable_that_is_described_otherwise_is_refused(path, state, description):
    _with(path, lambda metadata: metadata["variables"]["model/a"].update(description))
    message_of(path, state)
    with pytest.raises(CheckpointError):  # without a state to compare with, too
        format_lib.load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(format=None), lambda m: m.update(format=2.5), lambda m: m.clear(),
        lambda m: m.update(variables=None), lambda m: m.update(variables=["model/a"]),
        lambda m: m.update(variables={}), lambda m: m.update(arrays=[None]),
        lambda m: m.update(tree=5), lambda m: m.update(tree={"x": {"$array": 7}}),
        lambda m: m["variables"].update(b=m["variables"]["model/a"]),
    ],
)  # fmt: skip
def test_metadata_of_another_kind_are_refused(path, state, change):
    _with(path, change)
    message_of(path, state)


def test_an_entry_that_the_metadata_do_not_have_is_refused(path, state):
    arrays, metadata = read_entries(path)
    write_entries(path, arrays | {"more": np.zeros(3)}, metadata)
    assert "entries" in message_of(path, state)


# Bombs.


def _is_refused_at_once(path, state):
    tracemalloc.start()
    started = time.monotonic()
    message = message_of(path, state)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.monotonic() - started < 1
    assert peak < 4 << 20
    return message


def test_a_zip_bomb_is_refused_at_once(path, state):
    """One MB that would become a quarter of a GiB."""
    text = np.frombuffer(b"{}", np.uint8)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("replica0/model/a.npy", "w", force_zip64=True) as entry:
            np.lib.format.write_array_header_1_0(
                entry, {"descr": "<f4", "fortran_order": False, "shape": (1 << 26,)}
            )
            for _ in range(4):
                entry.write(bytes(1 << 26))
        with file.open("metadata.npy", "w") as entry:
            np.lib.format.write_array(entry, text)
    assert path.stat().st_size < 2 << 20
    assert "compressed" in _is_refused_at_once(path, state)


def test_entries_that_overlap_are_refused(path, state):
    """A directory of the zip whose entries all lie at one place."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.npy", bytes(1 << 20))
        (first,) = file.filelist
        for number in range(50):
            entry = zipfile.ZipInfo(f"{number}.npy")
            entry.header_offset, entry.CRC = first.header_offset, first.CRC
            entry.file_size = entry.compress_size = first.file_size
            file.filelist.append(entry)
    # Python's zipfile may see that itself.
    assert "larger than the file" in _is_refused_at_once(path, state)


@pytest.mark.parametrize("shape", [(1 << 40,), (1 << 20, 1 << 20)])
def test_an_array_that_claims_to_be_larger_than_its_entry_is_refused(path, state, shape):
    _, metadata = read_entries(path)
    metadata["variables"] = {"model/a": {"dtype": "float32", "shape": shape, "digests": ["0"]}}
    with zipfile.ZipFile(path, "w") as file:
        with file.open("replica0/model/a.npy", "w") as entry:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(entry, header)
            entry.write(bytes(16))
        with file.open("metadata.npy", "w") as entry:
            text = format_lib.json.dumps(metadata).encode()
            np.lib.format.write_array(entry, np.frombuffer(text, np.uint8))
    _is_refused_at_once(path, state)
    with pytest.raises(CheckpointError):  # without a state to compare with, too
        format_lib.load(path)


def test_metadata_without_end_are_refused(path, state, monkeypatch):
    monkeypatch.setattr(format_lib, "MAX_METADATA_BYTES", 200)
    assert "its metadata have" in message_of(path, state)


def test_metadata_that_nest_without_end_are_refused(path, state):
    arrays, _ = read_entries(path)
    np.savez(path, **arrays, metadata=np.frombuffer(b"[" * 100_000, np.uint8))
    assert "RecursionError" in message_of(path, state)


# What is no regular file.


def test_a_link_to_a_file_is_read_and_one_to_nothing_is_missing(path, state, tmp_path):
    link = tmp_path / "link.npz"
    link.symlink_to(path)
    assert checkpoint.restore(link, state) == link
    link.unlink()
    link.symlink_to(tmp_path / "nowhere.npz")
    assert "there is no checkpoint" in message_of(link, state)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_and_a_device_are_refused_without_waiting(state, tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    assert "not a regular file" in message_of(tmp_path / "pipe.npz", state)
    assert "not a regular file" in message_of("/dev/zero", state)
    (tmp_path / "link.npz").symlink_to(tmp_path / "pipe.npz")
    assert "not a regular file" in message_of(tmp_path / "link.npz", state)
    os.mkfifo(tmp_path / "ckpt-99.npz")  # In a directory it is as if it were not there.
    (tmp_path / "ckpt-98.npz").mkdir()
    assert checkpoint.latest(tmp_path) is None
    newest = checkpoint.save(tmp_path, state)
    assert checkpoint.latest(tmp_path) == newest


def test_saving_does_not_follow_a_link_at_the_temporary_name(state, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / f"ckpt-12.npz.{os.getpid()}.tmp").symlink_to(victim)
    (tmp_path / "ckpt-12.npz").symlink_to(victim)
    path = checkpoint.save(tmp_path, state)
    assert victim.read_text() == "mine"
    assert not path.is_symlink()


def test_a_file_that_cannot_be_read_is_no_damage(path, state, monkeypatch):
    def fail(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("gradloop.engine.storage.archive.os.open", fail)
    assert "cannot read" in message_of(path, state)
    assert "Permission denied" in message_of(path.parent, state)
    monkeypatch.undo()
    assert path.exists()


def test_the_attacks_are_counted():
    print(f"{len(ATTACKS) + 6} attacks on progress, {len(DESCRIPTIONS)} on variables, 10 on others")
