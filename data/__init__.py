"""Data sets as NumPy arrays, and `data.pipeline`, which makes them a `tf.data.Dataset`."""

from __future__ import annotations

import difflib
import importlib
import os
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["DATASETS", "DatasetArrays", "DatasetInfo", "load"]


class DatasetArrays(NamedTuple):
    """A whole data set in memory."""

    x_train: npt.NDArray[np.uint8]
    y_train: npt.NDArray[np.uint8]
    x_test: npt.NDArray[np.uint8]
    y_test: npt.NDArray[np.uint8]
    num_classes: int


class DatasetInfo(NamedTuple):
    """Where a data set's loader is, and whether it reads files.

    The module is named and not imported: `python -m data.mnist` would find itself imported
    before it runs, and warn.
    """

    module: str
    has_files: bool


DATASETS: dict[str, DatasetInfo] = {
    "mnist": DatasetInfo("data.mnist", has_files=True),
    "fashion_mnist": DatasetInfo("data.fashion_mnist", has_files=True),
    "synthetic": DatasetInfo("data.synthetic", has_files=False),
}


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> DatasetArrays:
    """Loads a data set by its name.

    Args:
      name: One of `DATASETS`.
      data_dir: A folder with the files, or one to download them into; see `data.sources.load`.
        The synthetic data set has no files and takes no notice of it.

    Raises:
      ValueError: If there is no such data set; its `DataError` if the data cannot be had.
    """
    module = _module(name)
    arguments = (data_dir,) if DATASETS[name].has_files else ()
    (x_train, y_train), (x_test, y_test) = module.load_data(*arguments)
    return DatasetArrays(x_train, y_train, x_test, y_test, len(module.CLASS_NAMES))


def _module(name: str) -> Any:
    if name not in DATASETS:
        nearest = difflib.get_close_matches(name, DATASETS, n=1, cutoff=0.0)
        raise ValueError(
            f"dataset: expected one of {', '.join(DATASETS)}, got {name!r}; "
            f"did you mean {nearest[0]}?"
        )
    return importlib.import_module(DATASETS[name].module)
