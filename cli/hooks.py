"""The hooks of a run from the command line."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gradloop.engine.hooks import (
    EarlyStopping,
    Hook,
    OnNonfinite,
    Profile,
    ProgressBar,
    SaveCheckpoint,
    StateDigest,
    StopAfterSteps,
    StopAfterTime,
    StopOnNaN,
    StopOnSignal,
    Watchdog,
    WriteMetrics,
)
from gradloop.engine.storage.extras import MissingExtra
from gradloop.engine.storage.tensorboard import TensorBoardWriter
from gradloop.engine.storage.trackers import Tracker
from gradloop.engine.storage.writers import CSVWriter, JSONLinesWriter, MultiWriter, Writer

from .config import JobConfig
from .log import Log
from .monitored import direction_for
from .run_folder import RunFolder
from .texts import parse_duration, parse_profile


def make_hooks(
    folder: RunFolder,
    log: Log,
    config: JobConfig,
    *,
    started_at: float | None = None,
    trackers: Sequence[Tracker] = (),
) -> list[Hook]:
    """Returns the hooks of every run: they watch, record, save and show.

    Args:
      folder: Where files go.
      log: Where lines go.
      config: Read: what it says of stops, files and the group "reliability".
      started_at: The `time.monotonic()` from which `max_time` counts; None: the first step.
      trackers: What gets the numbers beside the files.
    """
    return [
        *_optional_hooks(folder, log, config, started_at),
        StopOnSignal(),
        *_nonfinite_hooks(folder, log, config),
        *_early_stopping(config),
        WriteMetrics(
            MultiWriter(*_writers(folder, log, config), *trackers),
            every_steps=config.log_every_steps,
            on_error=config.on_save_error,
        ),
        SaveCheckpoint(
            folder.checkpoints,
            every_steps=config.checkpoint_every_steps,
            every_epochs=config.checkpoint_every_epochs,
            every_secs=config.checkpoint_every_secs,
            max_to_keep=config.keep,
            keep_best=config.keep_best,
            mode=direction_for(config, config.keep_best) or "auto",
            asynchronous=config.checkpoint_async,
            on_error="stop" if config.on_save_error == "stop" else "continue",
            grace_secs=config.grace_secs,
        ),
        ProgressBar(
            stream=log.bar_stream, line=log.line, examples_per_step=config.global_batch_size
        ),
    ]


def _writers(folder: RunFolder, log: Log, config: JobConfig) -> list[Writer]:
    writers: list[Writer] = [
        CSVWriter(folder.metrics_csv, clock=time.time),
        JSONLinesWriter(folder.metrics_jsonl, clock=time.time),
    ]
    if config.tensorboard is not False:
        try:
            writers.append(TensorBoardWriter(folder.tensorboard))
        except MissingExtra as error:
            log.line(f"no TensorBoard files: {error}")
    return writers


def _early_stopping(config: JobConfig) -> list[Hook]:
    if config.early_stopping is None:
        return []
    return [
        EarlyStopping(
            config.early_stopping,
            min_delta=config.min_delta or 0.0,
            patience=config.patience or 0,
            mode=direction_for(config, config.early_stopping) or "auto",
            restore_best_weights=config.restore_best,
        )
    ]


def _optional_hooks(
    folder: RunFolder, log: Log, config: JobConfig, started_at: float | None
) -> list[Hook]:
    hooks: list[Hook] = []
    if config.profile is not None:
        # First, so that the last profiled step does not include the work of the other hooks.
        steps = parse_profile(config.profile)
        hooks.append(Profile(folder.new_profile(), *steps, line=log.line))
    if config.max_time is not None:
        hooks.append(StopAfterTime(parse_duration(config.max_time), started_at=started_at))
    if config.max_steps is not None:
        hooks.append(StopAfterSteps(config.max_steps))
    hooks += watchdogs(config)
    if config.state_digest is not None:
        hooks.append(StateDigest(folder.digests_csv, every_steps=config.state_digest))
    return hooks


def watchdogs(config: JobConfig) -> list[Hook]:
    """Returns the hook that ends a run which hangs, if the config has a limit."""
    limit = config.hang_limit
    if limit is None:
        return []
    # A peer may be lost while this worker waits for the end of its first step.
    is_several = config.strategy == "multi_worker"
    return [Watchdog(limit, traced_secs=limit + config.start_limit if is_several else None)]


def _nonfinite_hooks(folder: RunFolder, log: Log, config: JobConfig) -> list[Hook]:
    if config.on_nonfinite == "off":
        return []
    if config.on_nonfinite is None:
        return [StopOnNaN()]
    return [
        OnNonfinite(
            config.on_nonfinite,
            directory=folder.checkpoints,
            global_batch_size=config.global_batch_size,
            line=log.line,
        )
    ]
