import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gradloop import data
from gradloop.data.sets import mnist, preview

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def arrays():
    return mnist.load_data()


def test_load_data_gives_the_arrays_of_keras_datasets(arrays):
    (x_train, y_train), (x_test, y_test) = arrays
    assert x_train.shape == (60_000, 28, 28)
    assert y_train.shape == (60_000,)
    assert x_test.shape == (10_000, 28, 28)
    assert y_test.shape == (10_000,)
    assert {a.dtype for a in (x_train, y_train, x_test, y_test)} == {np.dtype(np.uint8)}
    assert y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_the_arrays_are_the_callers_to_change(arrays):
    (x_train, _), _ = mnist.load_data()
    x_train[0] = 255
    assert (arrays[0][0][0] != 255).any()


def test_load_looks_data_sets_up_by_name(arrays):
    loaded = data.load("mnist")
    np.testing.assert_array_equal(loaded.x_test, arrays[1][0])
    assert loaded.num_classes == 10
    assert set(data.DATASETS) == {"mnist", "fashion_mnist", "synthetic"}


def test_an_unknown_name_gives_the_legal_and_the_nearest_one():
    with pytest.raises(ValueError, match="mnist, fashion_mnist, synthetic") as caught:
        data.load("fashoin-mnist")
    assert "Did you mean 'fashion_mnist'?" in str(caught.value)


def run_module(*arguments):
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "gradloop.data.sets.preview",
        "mnist",
        *map(str, arguments),
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_as_a_module_it_prints_what_it_holds_and_saves_a_picture(arrays, tmp_path):
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


@pytest.mark.slow
def test_fashion_mnist_has_the_published_arrays():
    loaded = data.load("fashion_mnist")
    assert loaded.x_train.shape == (60_000, 28, 28)
    assert np.bincount(loaded.y_train).tolist() == [6000] * 10
    assert loaded.y_train[:5].tolist() == [9, 0, 0, 3, 0]
