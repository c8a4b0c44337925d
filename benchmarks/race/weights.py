"""Weights of arms on disk: equal ones are stored once, and compared bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


def save(path: Path, weights: Sequence[Array]) -> None:
    """Writes arrays as w000, w001, ..."""
    np.savez(path, **{f"w{index:03d}": array for index, array in enumerate(weights)})


def load(path: Path) -> list[Array]:
    """Returns the arrays that `save` wrote, in their order."""
    with np.load(path) as arrays:
        return [arrays[name] for name in sorted(arrays.files)]


def digest(weights: Sequence[Array]) -> str:
    """Returns a SHA-256 of shapes, dtypes and bytes."""
    sha = hashlib.sha256()
    for array in weights:
        sha.update(f"{array.dtype} {array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def first_difference(weights: Sequence[Array], others: Sequence[Array]) -> str | None:
    """Returns where two lists of arrays first differ in a bit, in words; None if nowhere."""
    if shapes(weights) != shapes(others):
        return f"{len(weights)} arrays of other shapes or dtypes than the {len(others)} of fit"
    for index, (one, other) in enumerate(zip(weights, others, strict=True)):
        # Bytes: NaN equals NaN, and -0 is not 0.
        if one.tobytes() != other.tobytes():
            difference = np.abs(one.astype(np.float64) - other.astype(np.float64)).max()
            return f"weight {index} of shape {one.shape} differs by up to {difference:.2g}"
    return None


def shapes(weights: Sequence[Array]) -> list[tuple[tuple[int, ...], str]]:
    """Returns shape and dtype of each array."""
    return [(array.shape, str(array.dtype)) for array in weights]


class WeightsStore:
    """A directory in which files with equal weights are one file.

    Args:
      directory: Exists.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def new_path(self, arm: str, index: int) -> Path:
        """Returns the file for an arm's weights of a round."""
        return self._directory / f"weights-{arm}-{index}.npz"

    def keep(self, path: Path) -> Path:
        """Renames a file after its content and returns the new name."""
        kept = self._directory / f"weights-{digest(load(path))}.npz"
        return path.replace(kept)
