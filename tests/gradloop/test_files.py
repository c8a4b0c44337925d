"""How things get to disk: whole or not at all, and strict JSON."""

import json
import os

import numpy as np
import pytest

from gradloop import files


def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(path, lambda file: file.write(b"new"), mode="wb")
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_a_write_that_ends_replaces_the_file(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    files.write_atomically(path, lambda file: file.write("new\n"))
    assert path.read_text() == "new\n"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_a_directory_that_cannot_be_made_is_named_with_the_fix(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write to .*file/deep.* Name another directory"):
        files.make_directory(tmp_path / "file" / "deep")


def test_json_is_strict_and_takes_what_runs_have():
    text = files.json_text({"loss": float("nan"), "max": np.float32(np.inf), "x": np.arange(2)})
    assert json.loads(text) == {"loss": "NaN", "max": "Infinity", "x": [0, 1]}
