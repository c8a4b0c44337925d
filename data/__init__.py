"""Datasets by name; the module `pipeline` turns arrays into a `tf.data.Dataset`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from gradloop.files import expanded
from gradloop.usage import did_you_mean

from .sets import fashion_mnist, mnist, synthetic
from .splits import Split, Splits

if TYPE_CHECKING:
    from .own.options import FileOptions

__all__ = [
    "DATASETS", "DatasetArrays", "Split", "Splits", "fashion_mnist", "load", "load_arrays", "mnist",
    "synthetic",
]  # fmt: skip

DATASETS = {"mnist": mnist, "fashion_mnist": fashion_mnist, "synthetic": synthetic}

# Makes `import gradloop.data.mnist` work: the modules lie in sets/, but their names leave it out.
sys.modules |= {f"{__name__}.{name}": module for name, module in DATASETS.items()}


class DatasetArrays(NamedTuple):
    """A whole dataset in memory.

    Attributes:
      x_train: Training images, uint8 of shape `[num_train, ...]`.
      y_train: Their class numbers, uint8 of shape `[num_train]`.
      x_test: Test images, likewise.
      y_test: Their class numbers, likewise.
      num_classes: Number of classes.
    """

    x_train: npt.NDArray[np.uint8]
    y_train: npt.NDArray[np.uint8]
    x_test: npt.NDArray[np.uint8]
    y_test: npt.NDArray[np.uint8]
    num_classes: int


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    options: FileOptions | None = None,
) -> Splits:
    """Loads a dataset by name, or from a file or folder.

    Args:
      name: One of `DATASETS`, or a path: a .npz, .csv or .parquet file, or a folder of such files
        or of images. docs/data_files.md says what they hold.
      data_dir: See `load_arrays`; of datasets by name alone.
      options: How files are read. Default: `FileOptions()`.

    Returns:
      Its training and test examples, and the names of its classes.

    Raises:
      ValueError: If there is no such dataset, or its files cannot be read.

    Example:
      >>> splits = data.load("fashion_mnist")
      >>> splits.class_names[:2], splits.input_shape
      (('T-shirt/top', 'Trouser'), (28, 28, 1))
    """
    from . import own

    options = options or own.FileOptions()
    if name not in DATASETS:
        path = expanded(name)
        if len(path.parts) == 1 and not path.suffix and not path.exists():
            raise ValueError(_describe_unknown(name))
        return own.load_path(path, options)
    options.refuse_others((), f"the dataset {name}")
    arrays = load_arrays(name, data_dir)
    num_classes = arrays.num_classes
    return Splits(
        Split(arrays.x_train, arrays.y_train, num_classes),
        Split(arrays.x_test, arrays.y_test, num_classes),
        class_names=DATASETS[name].CLASS_NAMES,
    )


def _describe_unknown(name: str) -> str:
    return (
        f"dataset: expected one of {', '.join(DATASETS)}, or the path of a file or folder, got "
        f"{name!r}.{did_you_mean(name, DATASETS)}"
    )


def load_arrays(name: str, data_dir: str | os.PathLike[str] | None = None) -> DatasetArrays:
    """Loads a dataset by name, as NumPy arrays.

    Args:
      name: One of `DATASETS`.
      data_dir: A folder that holds the files, or one to download them into. The synthetic dataset
        has no files and ignores it.

    Returns:
      The arrays and the number of classes.

    Raises:
      ValueError: If there is no such dataset.
      DataError: If its files cannot be obtained or are not the published ones. It is a ValueError.

    Example:
      >>> arrays = data.load_arrays("mnist")
      >>> arrays.x_test.shape, arrays.num_classes
      ((10000, 28, 28), 10)
    """
    if name not in DATASETS:
        raise ValueError(_describe_unknown(name))
    module = DATASETS[name]
    splits = synthetic.load_data() if module is synthetic else module.load_data(data_dir)
    (x_train, y_train), (x_test, y_test) = splits
    return DatasetArrays(x_train, y_train, x_test, y_test, len(module.CLASS_NAMES))
