"""Shows what is in a dataset: shapes, dtypes, label counts and a grid of images.

Run `python -m gradloop.data.sets.preview mnist`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gradloop.usage import EXIT_USAGE

from . import fashion_mnist, mnist
from .idx import UInt8Array
from .sources import DataError, cache_dir

DATASETS = {"mnist": mnist, "fashion_mnist": fashion_mnist}
_GRID_ROWS = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Prints what is in a dataset and saves a picture of it; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m gradloop.data.sets.preview",
        description="Prints what is in a dataset and saves a picture of it.",
    )
    parser.add_argument("name", choices=DATASETS, help="name of the dataset")
    parser.add_argument(
        "--data_dir", "--data-dir", help="folder with the files (default: the cache)"
    )
    parser.add_argument(
        "--output", type=Path, help="file of the picture (default: NAME.png in the cache)"
    )
    args = parser.parse_args(argv)
    module = DATASETS[args.name]
    try:
        (x_train, y_train), (x_test, y_test) = module.load_data(args.data_dir)
        print("\n".join(describe("train", x_train, y_train, module.CLASS_NAMES)))
        print("\n".join(describe("test", x_test, y_test, module.CLASS_NAMES)))
        output = args.output or cache_dir() / f"{args.name}.png"
        print(save_grid(output, x_train, y_train, module.CLASS_NAMES))
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    return 0


def describe(split: str, x: UInt8Array, y: UInt8Array, class_names: Sequence[str]) -> list[str]:
    """Returns two lines: shapes and dtypes, and how often each label occurs."""
    counts = np.bincount(y, minlength=len(class_names))
    named = ", ".join(f"{name} {count}" for name, count in zip(class_names, counts, strict=True))
    return [f"{split}: x {x.shape} {x.dtype}, y {y.shape} {y.dtype}", f"{split} labels: {named}"]


def save_grid(path: Path, x: UInt8Array, y: UInt8Array, class_names: Sequence[str]) -> str:
    """Saves the first few images of each class, one column per class; returns a line to print."""
    try:
        from matplotlib import figure
    except ImportError:
        return "no picture: matplotlib is not installed; run pip install 'gradloop[plots]'"
    picture = figure.Figure(figsize=(len(class_names), _GRID_ROWS + 0.5), layout="tight")
    axes = picture.subplots(_GRID_ROWS, len(class_names), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for label, name in enumerate(class_names):
        axes[0, label].set_title(name, fontsize=8)
        for row, image in enumerate(x[y == label][:_GRID_ROWS]):
            axes[row, label].imshow(image, cmap="gray_r")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path)
    return f"saved {path}"


if __name__ == "__main__":
    sys.exit(main())
