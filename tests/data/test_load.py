"""Datasets by name, and the names that their modules have."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gradloop import data
from gradloop.data import mnist

ROOT = Path(__file__).parents[2]


def test_load_looks_datasets_up_by_name():
    loaded = data.load_arrays("mnist")
    np.testing.assert_array_equal(loaded.x_test, mnist.load_data()[1][0])
    assert loaded.num_classes == 10
    assert set(data.DATASETS) == {"mnist", "fashion_mnist", "synthetic"}


def test_an_unknown_name_gives_the_legal_and_the_nearest_one():
    with pytest.raises(ValueError, match="mnist, fashion_mnist, synthetic") as caught:
        data.load("fashoin-mnist")
    assert "Did you mean 'fashion_mnist'?" in str(caught.value)


@pytest.mark.parametrize("name", data.DATASETS)
def test_a_dataset_is_an_attribute_and_a_module_of_data(name):
    module = data.DATASETS[name]
    assert getattr(data, name) is module
    assert importlib.import_module(f"gradloop.data.{name}") is module
    assert importlib.import_module(f"gradloop.data.sets.{name}") is module


IMPORTS = (
    "from gradloop.data import mnist; load_data = mnist.load_data",
    "import gradloop.data.mnist; load_data = gradloop.data.mnist.load_data",
    "from gradloop.data.mnist import load_data",
)


@pytest.mark.parametrize("first", IMPORTS)
def test_each_way_to_import_mnist_gives_the_same_module_whichever_comes_first(first):
    lines = ["import sys", first, "found = [load_data]"]
    for line in IMPORTS:
        lines += [line, "found.append(load_data)"]
    lines += [
        "from gradloop.data import mnist",
        "assert all(load_data is mnist.load_data for load_data in found)",
        "assert sys.modules['gradloop.data.mnist'] is sys.modules['gradloop.data.sets.mnist']",
        "assert sys.modules['gradloop.data.mnist'] is gradloop.data.mnist is mnist",
        "assert 'tensorflow' not in sys.modules",  # Arrays need none, and it is slow to import.
    ]
    command = [sys.executable, "-W", "error", "-c", "\n".join(lines)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
