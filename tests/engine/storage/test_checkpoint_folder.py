"""CheckpointFolder: damaged files never count, are set aside and named; foreign ones stay."""

import itertools
import os

import numpy as np
import pytest

from gradloop import engine
from gradloop.engine.storage import checkpoint, checkpoint_folder
from gradloop.engine.storage.checkpoint_folder import CheckpointFolder
from gradloop.engine.storage.format import CheckpointFile
from tests.engine.storage.states import fake_state

FOREIGN = {"notes.txt": b"mine", "ckpt-3-old.npz": b"mine", "ckpt-x.npz": b"", "model.npz": b"PK"}


def save(directory, *steps):
    for num_steps in steps:
        state = fake_state(num_steps, **{"model/a": np.full(3, num_steps)})
        engine.save_checkpoint(directory, state)


def damage(path):
    path.write_bytes(path.read_bytes()[:-30])


def names(directory):
    return sorted(path.name for path in directory.iterdir())


MATRIX = [
    (keep, damaged)
    for keep in (1, 2, 3, 4)
    for num in range(5)
    for damaged in itertools.combinations((2, 4, 6, 8), num)
]


def test_retention_counts_good_files_alone_and_keeps_the_last(tmp_path, capsys):
    """Every way to damage some of four checkpoints, with foreign files among them."""
    for keep, damaged in MATRIX:
        directory = tmp_path / f"{keep}-{damaged}"
        save(directory, 2, 4, 6, 8)
        for num_steps in damaged:
            damage(directory / f"ckpt-{num_steps}.npz")
        for name, content in FOREIGN.items():
            (directory / name).write_bytes(content)
        (directory / "ckpt-5.npz.77.tmp").write_bytes(b"half")

        CheckpointFolder(directory).retain(keep)

        good = [n for n in (8, 6, 4, 2) if n not in damaged]
        kept = good[:keep]
        expected = {f"ckpt-{n}.npz" for n in kept} | set(FOREIGN)
        assert set(names(directory)) - {"quarantine"} == expected
        # What is older than the last that is kept is removed unread; what is newer is set aside.
        oldest = kept[-1] if len(kept) == keep else 0
        aside = {f"ckpt-{n}.npz" for n in damaged if n > oldest}
        quarantine = directory / "quarantine"
        assert (set(names(quarantine)) if quarantine.exists() else set()) == aside
        said = capsys.readouterr().err
        assert sum("set aside" in line for line in said.splitlines()) == len(aside)
        assert all(f"{name} is damaged" in said for name in aside)
    print(f"{len(MATRIX)} cases of retention: keep 1 to 4, each set of damaged files")


def test_what_this_process_has_written_is_not_read_again(tmp_path, monkeypatch):
    read = []
    verify = CheckpointFile.verify
    monkeypatch.setattr(
        CheckpointFile, "verify", lambda file: read.append(file.path.name) or verify(file)
    )
    save(tmp_path, 1)
    folder = CheckpointFolder(tmp_path)
    for num_steps in (2, 3, 4):
        folder.save(fake_state(num_steps, a=np.zeros(3)))
        folder.retain(2)
    assert read == ["ckpt-1.npz"]  # once, when it counted
    assert names(tmp_path) == ["ckpt-3.npz", "ckpt-4.npz"]
    damage(tmp_path / "ckpt-4.npz")  # another size: no longer good
    assert folder.newest().name == "ckpt-3.npz"


def test_restoring_from_a_directory_reads_each_file_once(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(
        checkpoint_folder, "CheckpointFile",
        lambda path: opened.append(path.name) or CheckpointFile(path),
    )  # fmt: skip
    save(tmp_path, 1, 2, 3)
    damage(tmp_path / "ckpt-3.npz")
    state = fake_state(**{"model/a": np.zeros(3, "int64")})
    assert engine.restore_checkpoint(tmp_path, state).name == "ckpt-2.npz"
    assert opened == ["ckpt-3.npz", "ckpt-2.npz"]
    assert state.progress.num_steps_completed == 2


def test_latest_sets_damaged_files_aside_and_says_so(tmp_path, capsys):
    assert checkpoint.latest(tmp_path / "none") is None
    save(tmp_path, 9, 10, 100)
    assert checkpoint.latest(tmp_path).name == "ckpt-100.npz"
    (tmp_path / "ckpt-100.npz").write_bytes(b"PK")
    assert checkpoint.latest(tmp_path).name == "ckpt-10.npz"
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert "quarantine/ckpt-100.npz" in captured.err


def test_nothing_in_the_quarantine_is_overwritten(tmp_path):
    for content in (b"first", b"second", b"third"):
        (tmp_path / "ckpt-5.npz").write_bytes(content)
        assert checkpoint.latest(tmp_path) is None
    quarantine = tmp_path / "quarantine"
    assert names(quarantine) == ["ckpt-5.npz", "ckpt-5.npz.1", "ckpt-5.npz.2"]
    assert (quarantine / "ckpt-5.npz").read_bytes() == b"first"


def test_in_a_directory_that_cannot_be_written_damaged_files_are_skipped(
    tmp_path, monkeypatch, capsys
):
    save(tmp_path, 1, 2)
    damage(tmp_path / "ckpt-2.npz")

    def fail(*_args, **_options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "mkdir", fail)
    assert checkpoint.latest(tmp_path).name == "ckpt-1.npz"
    assert "skipped: " in capsys.readouterr().err
    assert (tmp_path / "ckpt-2.npz").exists()


def test_a_directory_without_an_intact_checkpoint_is_an_error_to_restore(tmp_path):
    (tmp_path / "ckpt-1.npz").write_bytes(b"PK")
    with pytest.raises(engine.CheckpointError, match="no intact checkpoint in"):
        checkpoint.restore(tmp_path, fake_state(a=np.zeros(3)))


def test_a_file_of_another_model_is_an_error_and_no_damage(tmp_path):
    save(tmp_path, 1)
    engine.save_checkpoint(tmp_path, fake_state(2, **{"model/other": np.zeros(3)}))
    with pytest.raises(engine.CheckpointError, match="belongs to another model"):
        engine.restore_checkpoint(tmp_path, fake_state(**{"model/a": np.zeros(3, "int64")}))
    assert names(tmp_path) == ["ckpt-1.npz", "ckpt-2.npz"]


def test_good_checkpoints_of_a_longer_run_are_refused(tmp_path):
    save(tmp_path, 5, 10)
    folder = CheckpointFolder(tmp_path)
    folder.check_none_beyond(10)
    CheckpointFolder(tmp_path / "nowhere").check_none_beyond(0)
    with pytest.raises(ValueError, match=r"ckpt-10\.npz is from a run that went further"):
        folder.check_none_beyond(9)
    damage(tmp_path / "ckpt-10.npz")
    folder.check_none_beyond(9)
    with pytest.raises(ValueError, match=r"ckpt-5\.npz is from a run that went further"):
        folder.check_none_beyond(4)


# What to evaluate with.


def _final(directory, num_steps):
    state = fake_state(num_steps, **{"model/a": np.full(3, -1)})
    engine.save_checkpoint(directory / "final.npz", state)


@pytest.mark.parametrize(
    ("steps", "final", "expected"),
    [
        ((4, 8), None, "ckpt-8.npz"),
        ((4, 8), 8, "final.npz"),
        ((4, 8), 4, "ckpt-8.npz"),  # the run went on
        ((), 8, "final.npz"),
        ((4,), 8, "final.npz"),  # the newest checkpoint is lost
    ],
)
def test_the_final_weights_are_those_of_the_newest_step(tmp_path, steps, final, expected):
    save(tmp_path, *steps)
    if final is not None:
        _final(tmp_path, final)
    assert checkpoint.final_checkpoint(tmp_path).name == expected
    newest = checkpoint.latest(tmp_path)
    assert newest == (tmp_path / f"ckpt-{max(steps)}.npz" if steps else None)


def test_a_damaged_final_file_does_not_count(tmp_path):
    assert checkpoint.final_checkpoint(tmp_path) is None
    save(tmp_path, 4)
    _final(tmp_path, 4)
    damage(tmp_path / "final.npz")
    assert checkpoint.final_checkpoint(tmp_path).name == "ckpt-4.npz"
    assert names(tmp_path) == ["ckpt-4.npz", "quarantine"]
