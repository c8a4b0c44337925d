"""The command that shows what is in a dataset."""

import subprocess
import sys

import numpy as np

from gradloop.data.sets import preview
from tests.data.sets.small_files import ROOT


def run_module(*arguments):
    options = ["-W", "error", "-m", "gradloop.data.sets.preview", "mnist"]
    command = [sys.executable, *options, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_as_a_module_it_prints_what_it_holds_and_saves_a_picture(tmp_path):
    result = run_module("--output", tmp_path / "grid.png")
    assert result.returncode == 0, result.stderr
    assert "x (60000, 28, 28) uint8, y (60000,) uint8" in result.stdout
    assert "x (10000, 28, 28) uint8, y (10000,) uint8" in result.stdout
    assert "1 1135" in result.stdout
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")


def test_as_a_module_it_ends_with_2_on_a_bad_file(tmp_path):
    (tmp_path / "mnist.npz").write_bytes(b"not an archive")
    result = run_module("--data_dir", tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and "mnist.npz" in result.stderr


def test_without_matplotlib_one_line_says_so(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    x, y = np.zeros((3, 2, 2), np.uint8), np.zeros(3, np.uint8)
    line = preview.save_grid(tmp_path / "grid.png", x, y, ["zero"])
    assert "gradloop[plots]" in line and "\n" not in line
    assert not (tmp_path / "grid.png").exists()
