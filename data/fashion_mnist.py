"""Fashion-MNIST: 60,000 + 10,000 grey images of Zalando's articles, 28x28 bytes.

The hashes are those of the files inside the archives that the publisher gives MD5 sums for.
`python -m data.fashion_mnist` shows what is in it.
"""

from __future__ import annotations

import functools
import os

from data import downloads, preview, sources
from data.idx import RawDataset, Source, UInt8Array

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

RAW = RawDataset(
    name="fashion_mnist",
    sha256={
        "train-images-idx3-ubyte": (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
        ),
        "train-labels-idx1-ubyte": (
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
        ),
        "t10k-images-idx3-ubyte": (
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
        ),
        "t10k-labels-idx1-ubyte": (
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
        ),
    },
    sources=(
        Source("Keras's cache", functools.partial(downloads.keras_cache, "fashion_mnist")),
        Source("Keras's download", functools.partial(downloads.keras_download, "fashion_mnist")),
        Source(f"apt-get download {downloads.APT_PACKAGE}", downloads.apt_download),
    ),
)


def load_data(
    data_dir: str | os.PathLike[str] | None = None,
) -> tuple[tuple[UInt8Array, UInt8Array], tuple[UInt8Array, UInt8Array]]:
    """Returns the arrays of `keras.datasets.fashion_mnist`, verified to the last bit.

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
