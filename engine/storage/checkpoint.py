"""Checkpoints: save, restore, find the newest one, and the one with the final weights.

A checkpoint is one file, `ckpt-<num_steps_completed>.npz`; what is in it, `format` says. A
directory has one writer at a time; `checkpoint_folder` keeps it in order.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arguments import check_built, check_path, check_state
from ..replicas.statistics import for_other_replicas, statistics_of
from ..replicas.sums import is_sum, sums_for_other_replicas
from ..step_variables import ACCUMULATED
from ..variables import METRICS_PREFIX, assign_local_values
from ..workers.peers import Peers
from .checkpoint_folder import FINAL, CheckpointFolder
from .format import CheckpointError, CheckpointFile, DamagedError
from .matching import Trait, differences, match

if TYPE_CHECKING:
    import keras

    from ..state import TrainState

_NUM_REPLICAS = "num_replicas"  # the part of a run that says of how many replicas values are


def save(path: str | os.PathLike[str], state: TrainState) -> Path:
    """Writes all variables, the progress, and what else a run needs to go on.

    Context: cross-replica, outside any compiled function, on all workers, of which the chief writes
    and the others wait. A hook calls it in `on_save_point`, when all hooks know what has happened,
    or in `on_train_end`. The file is written under a temporary name, forced to disk and renamed: a
    kill at any time leaves what was there before. Beside the state no memory is taken but for one
    variable.

    Args:
      path: A file, or a directory, in which the file is named after the progress.
      state: What to save; it is only read.

    Returns:
      The file.

    Raises:
      ValueError: If the directory cannot be made or written, the progress is impossible, or a run
        is in progress and not at a save point.
      OSError: If the file cannot be written.

    Example:
      >>> engine.save_checkpoint(tmp_path, state).name
      'ckpt-0.npz'
    """
    check_path(path)
    check_state(state)
    check_built(state)
    if not state.resumption.may_save:
        raise ValueError(
            "A run that is in progress can be saved in on_save_point of a hook, when all hooks "
            "know what has happened: at another moment, the file would not go on as the run does. "
            "Call engine.save_checkpoint there, or let engine.SaveCheckpoint do it."
        )
    path = Path(path)
    if path.suffix == ".npz":
        return CheckpointFolder(path.parent).save(state, path.name)
    return CheckpointFolder(path).save(state)


def restore(path: str | os.PathLike[str], state: TrainState, *, only: str | None = None) -> Path:
    """Assigns all variables and the progress. Everything is verified before anything is assigned.

    Context: cross-replica, on all workers, which must all see the file, such as on a shared file
    system. The state must have been built as for the run that saved it; another number of replicas
    is allowed, unless accumulated gradients wait for an update, and so are other numbers in the
    names that Keras gives, such as `dense_2` for `dense`.

    A symbolic link to a file is followed. What is not a regular file (a pipe, a device) is refused.

    Args:
      path: A file, or a directory, which stands for its newest intact checkpoint. Damaged files in
        it that are newer are moved into its folder `quarantine`, each with a line on stderr.
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
    path = _agreed(Path(path), state.peers)
    if not path.is_dir():
        with CheckpointFile(path) as file:
            _restore_from(file, state, only)
        return path
    found = CheckpointFolder(path).read_newest(lambda file: _restore_from(file, state, only))
    if found is None:
        raise CheckpointError(f"there is no intact checkpoint in {path}.")
    return found[0]


def _agreed(path: Path, peers: Peers) -> Path:
    """Returns the file that all workers restore, where there are several: the chief chooses it."""
    if peers.is_alone:
        return path
    newest = CheckpointFolder(path).newest() if peers.is_chief and path.is_dir() else None
    name = peers.of_chief(None if newest is None else newest.name)
    path = path if name is None else path / name
    missing = [worker for worker, sees in enumerate(peers.share(path.exists())) if not sees]
    if missing:
        raise CheckpointError(
            f"{path} is not seen by the workers {missing} of {peers.num_workers}: checkpoints must "
            "lie where all workers see them, such as on a shared file system."
        )
    return path


def latest(directory: str | os.PathLike[str]) -> Path | None:
    """Returns the newest intact checkpoint, None if there is none.

    Damaged files that are newer are moved into its folder `quarantine`, each with a line on stderr.

    Raises:
      CheckpointError: If a newer file cannot be read for another reason than damage.

    Example:
      >>> engine.latest_checkpoint(tmp_path) is None
      True
    """
    check_path(directory)
    return CheckpointFolder(directory).newest()


def final_checkpoint(directory: str | os.PathLike[str]) -> Path | None:
    """Returns what to evaluate or predict with: the file with the final weights of a run.

    At its end, a run may replace the weights that its optimizer belongs to, by their moving average
    or the best ones. `SaveCheckpoint` then writes `final.npz` beside the newest checkpoint, from
    which the run can go on.

    Args:
      directory: Of `SaveCheckpoint`.

    Returns:
      `final.npz` if it is intact and not older than the newest intact checkpoint, else that
      checkpoint; None if there is neither. To go on training, take `latest_checkpoint`.

    Example:
      >>> hook = engine.SaveCheckpoint(tmp_path)
      >>> history = engine.fit(state, train_ds, config, hooks=[hook])
      >>> engine.final_checkpoint(tmp_path).name
      'ckpt-4.npz'
    """
    check_path(directory)
    folder = CheckpointFolder(directory)
    final = folder.directory / FINAL
    newest = folder.read_newest(_verified_num_steps)
    if not final.is_file():
        return newest and newest[0]
    try:
        with CheckpointFile(final) as file:
            num_steps = _verified_num_steps(file)
    except DamagedError as error:
        folder.set_aside(final, error)
        return newest and newest[0]
    return newest[0] if newest and newest[1] > num_steps else final


def _verified_num_steps(file: CheckpointFile) -> int:
    file.verify()
    return file.progress.num_steps_completed


def _restore_from(file: CheckpointFile, state: TrainState, only: str | None) -> None:
    """Compares what the file declares with the state, reads all, and then assigns all."""
    saved = file.traits
    if only is not None:
        saved = _restricted(file, state, only)
    state.create_named(saved)
    present = {
        name: variable
        for name, variable in state.named_variables()
        if only is None or name.startswith(f"{only}/")
    }
    saved = _without_reshaped_metrics(saved, present)
    _check_model(file.path, saved, present, state)
    matched = match(saved, present)
    values = file.read(matched.values())
    tree = file.read_tree()
    num_saved = _num_replicas(values, tree)
    _check_window(file.path, values, num_saved, state)
    if only is None:
        state.step_variables.clear()
    num_replicas = state.strategy.num_replicas_in_sync
    statistics = {id(variable) for variable in statistics_of(state)}
    for here, there in matched.items():
        variable, saved_values = present[here], values.pop(there)
        if id(variable) in statistics:
            saved_values = for_other_replicas(saved_values, num_replicas)
        elif is_sum(variable):
            saved_values = sums_for_other_replicas(saved_values, num_saved, num_replicas)
        assign_local_values(variable, saved_values, first_replica=state.peers.first_replica)
    if only is None:
        for field in dataclasses.fields(file.progress):
            setattr(state.progress, field.name, getattr(file.progress, field.name))
        state.resumption.restore(
            tree if num_saved == num_replicas else tree | {_NUM_REPLICAS: num_replicas}
        )


def _num_replicas(values: Mapping[str, list[np.ndarray]], tree: Mapping[str, Any]) -> int:
    """Returns how many replicas a file is of; where no run has said so, as far as values tell."""
    settings = tree.get("settings")
    told = tree.get(_NUM_REPLICAS)  # of a state that was restored and saved, without a run
    if told is None and isinstance(settings, dict):
        told = settings.get("num_replicas")
    return told if isinstance(told, int) else max(map(len, values.values()), default=1)


def _check_window(
    path: Path, values: Mapping[str, list[np.ndarray]], num_saved: int, state: TrainState
) -> None:
    """Raises CheckpointError if other replicas have begun a window of accumulated gradients."""
    waits = any(np.any(v) for n, v in values.items() if n.startswith(ACCUMULATED))
    if waits and num_saved != state.strategy.num_replicas_in_sync:
        raise CheckpointError(
            f"{path} has gradients of {num_saved} replicas that wait for an update "
            f"(gradient_accumulation_steps), and here are {state.strategy.num_replicas_in_sync}: "
            "restore it on as many, or take a checkpoint of the end of an epoch."
        )


def _without_reshaped_metrics(
    saved: Mapping[str, Trait], present: Mapping[str, keras.Variable]
) -> dict[str, Trait]:
    """Returns traits without those of metrics that have an entry a replica, now more or fewer."""
    return {
        name: trait
        for name, trait in saved.items()
        if not (name.startswith(METRICS_PREFIX) and name in present)
        or trait.shape == tuple(present[name].shape)
    }


def _restricted(file: CheckpointFile, state: TrainState, only: str) -> dict[str, Trait]:
    """Returns the traits of variables whose names begin with `only`."""
    saved = {name: trait for name, trait in file.traits.items() if name.startswith(f"{only}/")}
    has_some = any(name.startswith(f"{only}/") for name, _ in state.named_variables())
    if not saved or not has_some:
        legal = sorted({name.split("/")[0] for name in file.traits})
        raise CheckpointError(
            f"only={only!r}: {file.path} and the state must both have variables of it. The file "
            f"has: {', '.join(legal)}."
        )
    return saved


def _check_model(
    path: Path, saved: Mapping[str, Trait], present: Mapping[str, keras.Variable], state: TrainState
) -> None:
    # A run may be restored with other metrics: they are not part of what was learned. And what only
    # a traced step creates is not in a file from before the first step.
    optional = (METRICS_PREFIX, *(f"{owner}/" for owner in state.step_variables.owners()))
    here = {n: Trait(np.dtype(v.dtype).name, tuple(v.shape)) for n, v in present.items()}
    found = differences(saved, here, optional=optional)
    if found:
        raise CheckpointError(f"{path} belongs to another model or optimizer: {'; '.join(found)}.")
