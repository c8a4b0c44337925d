"""Datasets as NumPy arrays, and `pipeline`, which turns arrays into a `tf.data.Dataset`."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gradloop.usage import did_you_mean

from .sets import fashion_mnist, mnist, synthetic

__all__ = ["DATASETS", "DatasetArrays", "fashion_mnist", "load", "mnist", "synthetic"]

DATASETS = {"mnist": mnist, "fashion_mnist": fashion_mnist, "synthetic": synthetic}

# `import gradloop.data.mnist` works too: sets/ is a room of the house and not part of the name.
sys.modules |= {f"{__name__}.{name}": module for name, module in DATASETS.items()}


class DatasetArrays(NamedTuple):
    """A whole dataset in memory."""

    x_train: npt.NDArray[np.uint8]
    y_train: npt.NDArray[np.uint8]
    x_test: npt.NDArray[np.uint8]
    y_test: npt.NDArray[np.uint8]
    num_classes: int


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> DatasetArrays:
    """Loads a dataset by its name.

    Args:
      name: One of `DATASETS`.
      data_dir: A folder with the files, or one to download them into. The synthetic dataset has no
        files and does not look at it.

    Returns:
      The arrays and the number of classes.

    Raises:
      ValueError: If there is no such dataset, or its files cannot be had (`DataError`).

    Example:
      >>> arrays = data.load("mnist")
      >>> arrays.x_test.shape, arrays.num_classes
      ((10000, 28, 28), 10)
    """
    if name not in DATASETS:
        raise ValueError(
            f"dataset: expected one of {', '.join(DATASETS)}, got {name!r}."
            f"{did_you_mean(name, DATASETS)}"
        )
    module = DATASETS[name]
    splits = synthetic.load_data() if module is synthetic else module.load_data(data_dir)
    (x_train, y_train), (x_test, y_test) = splits
    return DatasetArrays(x_train, y_train, x_test, y_test, len(module.CLASS_NAMES))
