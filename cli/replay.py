"""--mode replay: runs one step of a run again, and names the operation that went wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from gradloop import engine
from gradloop.engine.first_nonfinite import (
    FirstNonfinite,
    find_first_nonfinite,
    is_finite,
    weights_are_finite,
)
from gradloop.engine.source import Source
from gradloop.engine.storage.checkpoint_folder import CheckpointFolder, num_steps_of
from gradloop.engine.storage.format import CheckpointFile

from . import restoring
from .config import JobConfig
from .job import Job, Status
from .log import Log
from .run_folder import RunFolder
from .work.initial import take_weights

# The variable of an optimizer in a checkpoint; there is none where the rate follows a schedule.
_RATE = "learning_rate"


def replay(job: Job, folder: RunFolder, log: Log) -> None:
    """Goes to the step before `--step` from the newest checkpoint, and runs the step with checks.

    Of the run's folder nothing changes, but that it gets a `replay.json`.

    Raises:
      ConfigError: If the run has no such step, or its first weights cannot be made again.
    """
    config, step = job.fit_config(), job.config.step
    assert isinstance(step, int), "JobConfig checks it"
    _check_step(job, config, step)
    rate = _rate_of_step(job, folder, step)
    path = _restore_before(job, folder, log, step)
    if rate is not None:
        restoring.set_rate(job.state, rate)
    log.line(f"from {path or 'the initial weights'} to step {step}")
    if job.config.hook is not None and (path is None or num_steps_of(path) < step - 1):
        log.line(
            f"warning: hook={','.join(job.config.hook)} does not run here: if it changes weights "
            f"or the learning rate, step {step} begins with other weights than it had in the run",
            stream=sys.stderr,
        )
    _train_until(job, config, step, resume=path is not None)
    facts = {"step": step, "checkpoint": None if path is None else path.name}
    facts |= _find(job, config, log)
    RunFolder(folder.path).write_json("replay", facts)
    job.facts["replay"] = facts
    job.end(Status.COMPLETED)


def _find(job: Job, config: JobConfig, log: Log) -> dict[str, Any]:
    """Runs the step, says what is not finite in it, and returns that."""
    state, batch = job.state, _next_batch(job, config)
    progress = state.progress
    facts = {
        "epoch": progress.epoch + 1,
        "batch": progress.step + 1,
        "batch_is_finite": is_finite(batch),
        "weights_are_finite": weights_are_finite(state),
    }
    found = find_first_nonfinite(
        job.work.train_step, state, batch, accumulation_steps=config.gradient_accumulation_steps
    )
    where = f"epoch {progress.epoch + 1}, batch {progress.step + 1}"
    log.line(f"step {job.config.step} ({where}): {_in_words(facts, found)}")
    return facts | {"first_nonfinite": found and dataclasses.asdict(found)}


def _check_step(job: Job, config: JobConfig, step: int) -> None:
    num_batches = job.make_dataset(training=True).num_batches
    per_epoch = min(config.steps_per_epoch or num_batches, num_batches)
    num_steps = (config.epochs - config.initial_epoch) * per_epoch
    if step > num_steps:
        raise engine.ConfigError(
            f"step={step} is beyond the end of the run: it has {num_steps} steps, of {per_epoch} "
            f"an epoch. Pass --step 1 to {num_steps}."
        )


def _restore_before(job: Job, folder: RunFolder, log: Log, step: int) -> Path | None:
    """Restores the newest good checkpoint from before a step; returns None if there is none."""
    for path in CheckpointFolder(folder.checkpoints).by_age():
        if num_steps_of(path) >= step:
            continue
        try:
            engine.restore_checkpoint(path, job.state)
        except engine.CheckpointError as error:
            log.line(f"skipped: {error}")
            continue
        _forget_hooks(job.state, step)
        return path
    _restore_start(job, folder)
    return None


def _rate_of_step(job: Job, folder: RunFolder, step: int) -> float | None:
    """Returns the fixed rate of a step; None: as the checkpoint before it has it.

    A run goes on with the rate of its settings at that time. The next checkpoint has it; after the
    last one, the config.
    """
    if job.config.hook is not None:
        return None
    for path in reversed(CheckpointFolder(folder.checkpoints).by_age()):
        if num_steps_of(path) < step:
            continue
        with contextlib.suppress(engine.CheckpointError), CheckpointFile(path) as file:
            names = [n for n in file.traits if n.startswith("optimizer/") and n.endswith(_RATE)]
            return float(file.read(names)[names[0]][0]) if names else None
    return restoring.rate_of(job.state)


def _restore_start(job: Job, folder: RunFolder) -> None:
    saved = json.loads((folder.path / "config.json").read_text("utf-8"))
    if saved.get("checkpoint") is not None:
        try:
            restoring.begin_from(job, saved["checkpoint"])
        except engine.CheckpointError as error:
            raise engine.ConfigError(
                f"{folder.checkpoints} has no good checkpoint from before step {job.config.step}, "
                "and the one from which the run began cannot be restored, so pass a later --step: "
                f"{error}"
            ) from error
    elif job.config.init_from is not None:
        take_weights(job.config.init_from, job.state, job.config.exclude or ())
    elif job.config.seed is None:
        raise engine.ConfigError(
            f"{folder.checkpoints} has no good checkpoint from before step {job.config.step}, and "
            "without a seed the initial weights were others: pass a later --step."
        )


def _forget_hooks(state: engine.TrainState, step: int) -> None:
    """Leaves out what the checkpoint has for hooks, and that a rollback left the step out."""
    parts: dict[str, Any] = dict(state.resumption.capture())
    parts["excluded"] = [n for n in parts.get("excluded", ()) if n != step]
    state.resumption.restore({k: v for k, v in parts.items() if k not in ("hooks", "stop")})


class _Reached(Exception):
    """The steps before the one to replay are done."""


class _StopBefore(engine.Hook):
    """Ends a training before a step: by an exception, so that nothing is done at its end."""

    def __init__(self, step: int) -> None:
        self._step = step

    def max_steps(self, num_steps_completed: int) -> int | None:
        return max(1, self._step - 1 - num_steps_completed)

    def around_execution(self, num_steps_completed: int) -> contextlib.AbstractContextManager[None]:
        if num_steps_completed >= self._step - 1:
            raise _Reached
        return contextlib.nullcontext()


def _train_until(job: Job, config: JobConfig, step: int, *, resume: bool) -> None:
    """Trains with the same loop, and so the same bits, up to the step before."""
    hooks: list[engine.Hook] = [_StopBefore(step)]
    is_checked = config.on_nonfinite not in (None, "off")
    if is_checked:  # Earlier steps may have been left out.
        hooks.append(engine.OnNonfinite("skip", line=lambda line: None))
    # Nothing is validated: the weights do not depend on it.
    config = dataclasses.replace(
        config, on_nonfinite="skip" if is_checked else None, validate_every_steps=None
    )
    with contextlib.suppress(_Reached):
        engine.fit(
            job.state, job.make_dataset(training=True), config, hooks=hooks, resume=resume,
            train_step=job.work.train_step,
        )  # fmt: skip
        raise AssertionError("the run has this step")


def _next_batch(job: Job, config: JobConfig) -> Any:
    progress = job.state.progress
    source = Source(
        job.make_dataset(training=True),
        job.state.strategy,
        config.steps_per_epoch,
        first_epoch=config.initial_epoch,
    )
    source.begin_epoch(progress.epoch, progress.step)
    return next(source.iterator)


def _in_words(facts: dict[str, Any], found: FirstNonfinite | None) -> str:
    if found is None:
        return "all operations are finite"
    before = [] if facts["batch_is_finite"] else ["the batch"]
    before += [] if facts["weights_are_finite"] else ["the weights before it"]
    told = f"; not finite already: {' and '.join(before)}" if before else ""
    return f"the first operation that is not finite is {found}{told}"
