"""What `python -m data.mnist` and its kin show: shapes, types, label counts, a grid of images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from data.idx import UInt8Array
from data.sources import DataError, cache_dir

Split = tuple[UInt8Array, UInt8Array]
_GRID_ROWS = 5


def main(
    name: str,
    class_names: Sequence[str],
    load_data: Callable[[str | None], tuple[Split, Split]],
    argv: Sequence[str] | None = None,
) -> int:
    """Prints what a data set holds and saves a picture of it; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m data.{name}", description=main.__doc__)
    parser.add_argument("--data_dir", "--data-dir", help="folder with the files (default: cache)")
    output = cache_dir() / f"{name}.png"
    parser.add_argument(
        "--output", type=Path, default=output, help="the picture (default: in the cache)"
    )
    args = parser.parse_args(argv)
    try:
        train, test = load_data(args.data_dir)
        print("\n".join(describe("train", *train, class_names)))
        print("\n".join(describe("test", *test, class_names)))
        print(save_grid(args.output, *train, class_names))
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def describe(split: str, x: UInt8Array, y: UInt8Array, class_names: Sequence[str]) -> list[str]:
    """Returns lines with the shapes, the types, and how often each label occurs."""
    counts = np.bincount(y, minlength=len(class_names))
    named = ", ".join(f"{name} {count}" for name, count in zip(class_names, counts, strict=True))
    return [f"{split}: x {x.shape} {x.dtype}, y {y.shape} {y.dtype}", f"{split} labels: {named}"]


def save_grid(path: Path, x: UInt8Array, y: UInt8Array, class_names: Sequence[str]) -> str:
    """Saves the first few images of each class, one column a class; returns a line to print."""
    try:
        from matplotlib import figure
    except ImportError:
        return "no picture: matplotlib is not installed; pip install 'gradloop[plots]' brings it"
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
