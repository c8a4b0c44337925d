"""The file of a checkpoint: what is in it, and how every byte of it is verified."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or belongs to another model."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The verified contents of a file.

    Attributes:
      progress: The fields of `Progress` when it was saved.
      values: Variable name to its arrays, one for each replica or one for all.
    """

    progress: dict[str, Any]
    values: dict[str, list[np.ndarray]]


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a file and verifies every byte that counts.

    Raises:
      CheckpointError: If the file is missing, damaged, or of another format; names the reason.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}.")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is not a checkpoint, or it is truncated.")
    try:
        return _read(path)
    except CheckpointError:
        raise
    # A damaged file makes zipfile and numpy raise nearly anything, from KeyError to MemoryError.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise CheckpointError(f"{path} is damaged ({reason}).") from error


def storable(value: np.ndarray) -> np.ndarray:
    """Returns an array that a .npy file can hold."""
    # .npy files know no bfloat16 or float8 (kind V, from ml_dtypes): store their bits.
    return value.view(f"u{value.dtype.itemsize}") if value.dtype.kind == "V" else value


def describe(values: Sequence[np.ndarray]) -> dict[str, Any]:
    """Returns dtype, shape and digests of a variable's values, JSON-ready."""
    return {
        "dtype": values[0].dtype.name,
        "shape": list(values[0].shape),
        "sha256": [hashlib.sha256(value.tobytes()).hexdigest() for value in values],
    }


def write_npz(file: IO[bytes], arrays: dict[str, Any]) -> None:
    """Writes arrays by name."""
    # `Any`: the type of savez's own option would be asked of the arrays too.
    np.savez(file, **arrays)


def _read(path: Path) -> Checkpoint:
    # np.load would leave a file that it opened itself open if the archive is damaged.
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        metadata = json.loads(file["metadata"].tobytes())
        if metadata["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has format {metadata['format']}; this version reads format {FORMAT}."
            )
        values: dict[str, list[np.ndarray]] = {}
        for name, described in metadata["variables"].items():
            # TensorFlow's import registers bfloat16 and its like with NumPy.
            dtype = np.dtype(described["dtype"])
            indices = range(len(described["sha256"]))
            stored = [file[f"replica{i}/{name}"] for i in indices]
            values[name] = [v.view(dtype) if dtype.kind == "V" else v for v in stored]
            if describe(values[name]) != described:
                raise CheckpointError(f"{path} is damaged (other bytes in {name} than were saved).")
    return Checkpoint(metadata["progress"], values)
