"""Checkpoints: save, verify, restore, retain.

A checkpoint is one file, `ckpt-<num_steps_completed>.npz`: arrays only, never pickles, so that a
file from a stranger can do no more than hold wrong numbers. It holds every variable of
`TrainState.named_variables()`, the states of seed generators included, as `replica<i>/<name>`: one
array where the replicas agree, one for each where they do not (BatchNorm statistics). The entry
`metadata` is JSON: format, progress, and each variable's dtype, shape and SHA-256.

A directory has one writer at a time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from gradloop.files import json_text, make_directory, write_atomically

from ..variables import LOGS_PREFIX, METRICS_PREFIX, assign_local_values, local_values

if TYPE_CHECKING:
    import keras

    from ..state import TrainState

FORMAT = 1
_FILE_NAME = re.compile(r"ckpt-(\d+)\.npz")
_LEFTOVER_NAME = re.compile(r"ckpt-\d+\.npz\.\d+\.tmp")
_NUM_NAMED = 3  # Variables that an error message names before it only counts.


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


def save(path: str | os.PathLike[str], state: TrainState) -> Path:
    """Writes all variables and the progress.

    Context: cross-replica, outside any compiled function. The file is written under a temporary
    name, forced to disk and renamed: a kill at any time leaves what was there before.

    Args:
      path: A file, or a directory, in which the file is named after the progress.
      state: What to save; it is only read.

    Returns:
      The file.

    Raises:
      ValueError: If the directory cannot be made or written.

    Example:
      >>> engine.save_checkpoint(tmp_path, state).name
      'ckpt-0.npz'
    """
    path = Path(path)
    if path.suffix != ".npz":
        path = path / f"ckpt-{state.progress.num_steps_completed}.npz"
    make_directory(path.parent)
    arrays: dict[str, np.ndarray] = {}
    variables = {}
    for name, variable in state.named_variables():
        values = local_values(variable)
        variables[name] = _describe(values)
        arrays |= {f"replica{i}/{name}": _storable(value) for i, value in enumerate(values)}
    metadata = {
        "format": FORMAT,
        "progress": dataclasses.asdict(state.progress),
        "variables": variables,
    }
    arrays["metadata"] = np.frombuffer(json_text(metadata).encode(), np.uint8)
    write_atomically(path, lambda file: _write_npz(file, arrays), mode="wb")
    return path


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


def restore(path: str | os.PathLike[str], state: TrainState) -> Path:
    """Assigns all variables and the progress. Everything is verified before anything is assigned.

    Context: cross-replica. The state must have been built as for the run that saved it; another
    number of replicas is allowed.

    Args:
      path: A file, or a directory, which stands for its newest intact checkpoint.
      state: What to restore into.

    Returns:
      The file that was read.

    Raises:
      CheckpointError: If the file is missing or damaged, or holds another model; names the first
        variables that differ.

    Example:
      >>> path = engine.save_checkpoint(tmp_path, state)
      >>> engine.restore_checkpoint(tmp_path, state) == path
      True
    """
    path = Path(path)
    if path.is_dir():
        newest = latest(path)
        if newest is None:
            raise CheckpointError(f"there is no intact checkpoint in {path}.")
        path = newest
    checkpoint = load(path)
    prefix = METRICS_PREFIX + LOGS_PREFIX
    for name in checkpoint.values:
        if name.startswith(prefix):  # what a step of the saved run has logged
            state.metrics.add_mean(name.removeprefix(prefix).rsplit("/", 1)[0])
    # A run may be restored with other metrics: they are not part of what was learned.
    variables = {
        name: variable
        for name, variable in state.named_variables()
        if name in checkpoint.values or not name.startswith(METRICS_PREFIX)
    }
    differences = _differences(checkpoint, variables)
    if differences:
        raise CheckpointError(
            f"{path} belongs to another model or optimizer: {'; '.join(differences)}."
        )
    for name, variable in variables.items():
        assign_local_values(variable, checkpoint.values[name])
    for field in dataclasses.fields(state.progress):
        if field.name in checkpoint.progress:
            setattr(state.progress, field.name, checkpoint.progress[field.name])
    return path


def latest(directory: str | os.PathLike[str]) -> Path | None:
    """Returns the newest intact checkpoint, None if there is none.

    Damaged files are skipped, each with a line on stderr.

    Example:
      >>> engine.latest_checkpoint(tmp_path) is None
      True
    """
    for path in _by_age(Path(directory)):
        try:
            load(path)
        except CheckpointError as error:
            print(f"skipped: {error}", file=sys.stderr)
        else:
            return path
    return None


def retain(directory: str | os.PathLike[str], max_to_keep: int) -> list[Path]:
    """Removes all but the newest checkpoints, and what killed writers left behind.

    Returns:
      The checkpoints that were removed.
    """
    if max_to_keep < 1:
        raise ValueError(f"max_to_keep must be 1 or more, not {max_to_keep}.")
    removed = _by_age(Path(directory))[max_to_keep:]
    leftovers = [p for p in Path(directory).glob("*.tmp") if _LEFTOVER_NAME.fullmatch(p.name)]
    for path in [*removed, *leftovers]:
        path.unlink(missing_ok=True)
    return removed


def check_none_beyond(directory: str | os.PathLike[str], num_steps: int) -> None:
    """Raises ValueError if the directory holds a checkpoint of more than `num_steps` steps."""
    newest = next(iter(_by_age(Path(directory))), None)
    if newest is not None and _num_steps(newest) > num_steps:
        raise ValueError(
            f"{newest} is from a run that went further than this one, at step {num_steps}: "
            "resume that run, or name another directory."
        )


def _by_age(directory: Path) -> list[Path]:
    """Newest first, by the number in the name: clocks and copies make file times unreliable."""
    paths = [path for path in directory.glob("ckpt-*.npz") if _FILE_NAME.fullmatch(path.name)]
    return sorted(paths, key=_num_steps, reverse=True)


def _num_steps(path: Path) -> int:
    match = _FILE_NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _storable(value: np.ndarray) -> np.ndarray:
    # .npy files know no bfloat16 or float8 (kind V, from ml_dtypes): store their bits.
    return value.view(f"u{value.dtype.itemsize}") if value.dtype.kind == "V" else value


def _describe(values: Sequence[np.ndarray]) -> dict[str, Any]:
    return {
        "dtype": values[0].dtype.name,
        "shape": list(values[0].shape),
        "sha256": [hashlib.sha256(value.tobytes()).hexdigest() for value in values],
    }


def _write_npz(file: IO[bytes], arrays: dict[str, Any]) -> None:
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
            if _describe(values[name]) != described:
                raise CheckpointError(f"{path} is damaged (other bytes in {name} than were saved).")
    return Checkpoint(metadata["progress"], values)


def _differences(checkpoint: Checkpoint, variables: dict[str, keras.Variable]) -> list[str]:
    saved = {
        name: values[0]
        for name, values in checkpoint.values.items()
        if name in variables or not name.startswith(METRICS_PREFIX)
    }
    differences = [
        _named("missing in the file", [name for name in variables if name not in saved]),
        _named("only in the file", [name for name in saved if name not in variables]),
    ]
    both = {name: variable for name, variable in variables.items() if name in saved}
    for what in ("shape", "dtype"):
        pairs = [(n, _trait(saved[n], what), _trait(v, what)) for n, v in both.items()]
        wrong = [f"{n} ({there}, here {here})" for n, there, here in pairs if there != here]
        differences.append(_named(f"another {what}", wrong))
    return [difference for difference in differences if difference]


def _trait(thing: Any, what: str) -> str:
    return str(tuple(thing.shape)) if what == "shape" else str(np.dtype(thing.dtype).name)


def _named(what: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return f"{what}: {', '.join(names[:_NUM_NAMED])}{more}" if names else ""
