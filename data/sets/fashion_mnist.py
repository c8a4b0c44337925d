"""Fashion-MNIST: 60,000 + 10,000 grayscale images of clothes sold by Zalando, 28x28 bytes each.

The hashes are those of the files inside the archives whose MD5 sums the publisher lists.
`python -m gradloop.data.sets.preview fashion_mnist` shows what is in it.
"""

from __future__ import annotations

import os

from . import downloads, sources
from .idx import RawDataset, Source, Split, hashes

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
    sha256=hashes(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    sources=(
        *downloads.from_keras("fashion_mnist"),
        Source(f"apt-get download {downloads.APT_PACKAGE}", downloads.apt_download),
    ),
)


def load_data(data_dir: str | os.PathLike[str] | None = None) -> tuple[Split, Split]:
    """Returns the arrays of `keras.datasets.fashion_mnist`; a SHA-256 verifies each file.

    Arguments, shapes and errors are as in `mnist.load_data`.
    """
    return sources.load_splits(RAW, data_dir)
