"""The published arrays."""

import numpy as np
import pytest

from gradloop import data
from gradloop.data.sets import mnist


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


@pytest.mark.slow
def test_fashion_mnist_has_the_published_arrays():
    loaded = data.load_arrays("fashion_mnist")
    assert loaded.x_train.shape == (60_000, 28, 28)
    assert np.bincount(loaded.y_train).tolist() == [6000] * 10
    assert loaded.y_train[:5].tolist() == [9, 0, 0, 3, 0]
