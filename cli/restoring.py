"""What a job restores before its first step: a run that goes on, a checkpoint, first weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from gradloop import engine
from gradloop.engine.storage.checkpoint import final_checkpoint
from gradloop.engine.storage.format import CheckpointFile

from . import resuming
from .run_directory import checkpoints_of
from .run_folder import RunFolder
from .work.initial import take_weights

if TYPE_CHECKING:
    from .job import Job


def restore(job: Job) -> None:
    """Restores what the config of a job says into its state, which is built.

    Raises:
      CheckpointError: If a checkpoint cannot be restored.
      ConfigError: If nothing is left to train, or first weights are of another model.
    """
    config = job.config
    if job.resumes:
        _resume(job)
    elif config.checkpoint is not None and config.mode == "train":
        begin_from(job, config.checkpoint)
        # The file: the newest in a folder may be another one when a step is replayed.
        job.config = dataclasses.replace(config, checkpoint=str(job.restored))
    elif config.checkpoint is not None:
        _restore_weights(job, checkpoints_of(Path(config.checkpoint)))
        job.state.progress = engine.Progress()
    elif config.init_from is not None:
        job.initial = take_weights(config.init_from, job.state, config.exclude or ())


def begin_from(job: Job, checkpoint: str) -> None:
    """Restores all but the progress and the learning rate, which is that of the settings.

    So a run that begins from a checkpoint and is killed goes on with the rate that it had: a run
    that goes on has the rate of its settings, too.

    Raises:
      CheckpointError: If it cannot be restored.
    """
    rate = rate_of(job.state)
    job.restored = engine.restore_checkpoint(checkpoints_of(Path(checkpoint)), job.state)
    job.state.progress = engine.Progress()
    before = rate_of(job.state)
    if rate is None or before is None or not set_rate(job.state, rate):
        return  # there is none, or it follows a schedule
    if before != rate:
        job.initial = f"learning_rate={rate:g}, and {before:g} in the checkpoint"


def rate_of(state: engine.TrainState) -> float | None:
    """Returns the learning rate; None where there is not one."""
    rate = state.learning_rate()
    return None if rate is None else float(rate)


def set_rate(state: engine.TrainState, rate: float) -> bool:
    """Sets the learning rate; returns whether that is possible: it may follow a schedule."""
    if state.optimizer is None:
        return False
    try:
        state.optimizer.learning_rate = rate
    except TypeError:
        return False
    return True


def _restore_weights(job: Job, path: Path) -> None:
    """Restores the final weights alone: the optimizer may be another."""
    found = final_checkpoint(path) if path.is_dir() else path
    if found is None:
        raise engine.CheckpointError(f"there is no intact checkpoint in {path}.")
    job.restored = engine.restore_checkpoint(found, job.state, only="model")
    with CheckpointFile(found) as file:
        job.state.progress = file.progress


def _resume(job: Job) -> None:
    checkpoints = RunFolder(Path(job.config.run_dir or "")).checkpoints
    if job.config.mode == "replay":
        return  # it restores a checkpoint from before its step
    if job.config.mode == "train":
        rate = rate_of(job.state)  # as the config has it
        job.restored = engine.restore_checkpoint(checkpoints, job.state)
        _set_learning_rate(job, rate)
        _check_work_left(job)
        return
    if not checkpoints.is_dir():
        raise engine.CheckpointError(f"there is no intact checkpoint in {checkpoints}.")
    _restore_weights(job, checkpoints)


def _set_learning_rate(job: Job, rate: float | None) -> None:
    """Sets a fixed rate, also if a kill came between config.json and the first checkpoint."""
    change = resuming.find_changes(job.config).get("learning_rate")
    if job.state.optimizer is None or (job.config.hook is not None and change is None):
        return  # a hook may have set another, which is restored
    if (rate is None or not set_rate(job.state, rate)) and change is not None:
        raise resuming.refusal(job.config, "learning_rate", *change)


def _check_work_left(job: Job) -> None:
    config, num_done = job.config, job.state.progress.num_epochs_completed
    is_over = num_done == config.epochs and resuming.is_done(Path(config.run_dir or ""))
    num_steps = job.state.progress.num_steps_completed
    if config.max_steps is not None and num_steps >= config.max_steps:
        raise engine.ConfigError(
            f"max_steps={config.max_steps}, but {num_steps} are done: to continue, ask for "
            "more, or for max_steps=none."
        )
    if num_done > config.epochs or (is_over and config.resume is True):
        raise engine.ConfigError(
            f"epochs={config.epochs}, but {num_done} are done: to continue, ask for more."
        )
