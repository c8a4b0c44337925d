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
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradloop.files import json_text, make_directory, write_atomically

from ..arguments import check_built, check_path, check_state
from ..variables import METRICS_PREFIX, assign_local_values, local_values
from .format import FORMAT, Checkpoint, CheckpointError, describe, load, storable, write_npz

if TYPE_CHECKING:
    import keras

    from ..state import TrainState

_FILE_NAME = re.compile(r"ckpt-(\d+)\.npz")
_LEFTOVER_NAME = re.compile(r"ckpt-\d+\.npz\.\d+\.tmp")
_NUM_NAMED = 3  # Variables that an error message names before it only counts.


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
    check_path(path)
    check_state(state)
    check_built(state)
    path = Path(path)
    if path.suffix != ".npz":
        path = path / f"ckpt-{state.progress.num_steps_completed}.npz"
    make_directory(path.parent)
    arrays: dict[str, np.ndarray] = {}
    variables = {}
    for name, variable in state.named_variables():
        values = local_values(variable)
        variables[name] = describe(values)
        arrays |= {f"replica{i}/{name}": storable(value) for i, value in enumerate(values)}
    metadata = {
        "format": FORMAT,
        "progress": dataclasses.asdict(state.progress),
        "variables": variables,
    }
    arrays["metadata"] = np.frombuffer(json_text(metadata).encode(), np.uint8)
    write_atomically(path, lambda file: write_npz(file, arrays), mode="wb")
    return path


def restore(path: str | os.PathLike[str], state: TrainState, *, only: str | None = None) -> Path:
    """Assigns all variables and the progress. Everything is verified before anything is assigned.

    Context: cross-replica. The state must have been built as for the run that saved it; another
    number of replicas is allowed.

    Args:
      path: A file, or a directory, which stands for its newest intact checkpoint.
      state: What to restore into.
      only: "model", or the name of an extra: restores its variables alone, and no progress, for a
        run that begins anew from these weights; None: all.

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
    check_path(path)
    check_state(state)
    check_built(state)
    path = Path(path)
    if path.is_dir():
        newest = latest(path)
        if newest is None:
            raise CheckpointError(f"there is no intact checkpoint in {path}.")
        path = newest
    checkpoint = load(path)
    if only is not None:
        checkpoint = _restrict(checkpoint, path, state, only)
    state.create_named(checkpoint.values)
    # A run may be restored with other metrics: they are not part of what was learned. And what only
    # a traced step creates is not in a file from before the first step.
    optional = (METRICS_PREFIX, *(f"{owner}/" for owner in state.step_variables.owners()))
    variables = {
        name: variable
        for name, variable in state.named_variables()
        if name in checkpoint.values or not name.startswith(optional)
        if only is None or name.startswith(f"{only}/")
    }
    differences = _differences(checkpoint, variables)
    if differences:
        raise CheckpointError(
            f"{path} belongs to another model or optimizer: {'; '.join(differences)}."
        )
    if only is None:
        state.step_variables.clear()
    for name, variable in variables.items():
        assign_local_values(variable, checkpoint.values[name])
    for field in dataclasses.fields(state.progress):
        if field.name in checkpoint.progress:
            setattr(state.progress, field.name, checkpoint.progress[field.name])
    return path


def _restrict(checkpoint: Checkpoint, path: Path, state: TrainState, only: str) -> Checkpoint:
    """Returns the part of a checkpoint whose names begin with `only`, without progress."""
    values = {n: v for n, v in checkpoint.values.items() if n.startswith(f"{only}/")}
    has_some = any(name.startswith(f"{only}/") for name, _ in state.named_variables())
    if not values or not has_some:
        legal = sorted({name.split("/")[0] for name in checkpoint.values})
        raise CheckpointError(
            f"only={only!r}: {path} and the state must both have variables of it. The file has: "
            f"{', '.join(legal)}."
        )
    return Checkpoint({}, values)


def latest(directory: str | os.PathLike[str]) -> Path | None:
    """Returns the newest intact checkpoint, None if there is none.

    Damaged files are skipped, each with a line on stderr.

    Example:
      >>> engine.latest_checkpoint(tmp_path) is None
      True
    """
    check_path(directory)
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
