"""How things get to disk: whole or not at all, and strict JSON."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from gradloop import files


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch, moment):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, moment, die)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(path, lambda file: file.write(b"new"), mode="wb")
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_a_writer_that_fails_halfway_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")

    def write(file):
        file.write("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.write_atomically(path, write)
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(("mode", "content"), [("w", "Größe\r\n"), ("wb", b"\x00\xff\r\n")])
def test_a_write_that_ends_replaces_the_file_byte_for_byte(tmp_path, mode, content):
    path = tmp_path / "a"
    path.write_text("old")
    files.write_atomically(path, lambda file: file.write(content), mode=mode)
    assert path.read_bytes() == (content if mode == "wb" else content.encode())
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_a_directory_is_made_with_its_parents_and_may_exist(tmp_path):
    for _ in range(2):
        directory = files.make_directory(tmp_path / "deep" / "er")
        assert directory == tmp_path / "deep" / "er" and directory.is_dir()


def test_a_directory_that_cannot_be_made_is_named_with_the_fix(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write to .*file/deep.* Name another directory"):
        files.make_directory(tmp_path / "file" / "deep")


def test_a_directory_that_cannot_be_written_is_named_with_the_fix(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # As root, all can be written.
    with pytest.raises(ValueError, match=r"a read-only disk.*make this one writable"):
        files.make_directory(tmp_path)


@dataclasses.dataclass
class Point:
    x: float
    where: Path


def test_json_is_strict_and_takes_what_runs_have():
    text = files.json_text(
        {
            "loss": float("nan"),
            "max": np.float32(np.inf),
            "min": [-np.inf],
            "x": np.arange(2),
            "point": Point(0.5, Path("a/b")),
            "none": (None, True),
            3: {"one"},
        }
    )
    assert json.loads(text, parse_constant=pytest.fail) == {
        "loss": "NaN",
        "max": "Infinity",
        "min": ["-Infinity"],
        "x": [0, 1],
        "point": {"x": 0.5, "where": "a/b"},
        "none": [None, True],
        "3": ["one"],
    }
