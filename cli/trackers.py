"""`--logger`: the trackers of a run, from its settings to its end."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradloop.engine.options import ConfigError
from gradloop.engine.storage import mlflow_writer, wandb_writer
from gradloop.engine.storage.trackers import RunDescription, Tracker

from .config import JobConfig
from .job import Job
from .log import Log
from .run_folder import RunFolder

_WRITERS: dict[str, Callable[[Path, RunDescription], Tracker]] = {
    "wandb": wandb_writer.WandbWriter,
    "mlflow": mlflow_writer.MlflowWriter,
}


def check(config: JobConfig) -> None:
    """Raises ConfigError if a tracker could not be reached for a reason that is known now."""
    if "wandb" in (config.logger or ()) and not wandb_writer.is_logged_in():
        raise ConfigError(
            "logger='wandb' has no API key: run `wandb login`, or set WANDB_MODE=offline, which "
            "writes files that `wandb sync` uploads later."
        )


def make(folder: RunFolder, config: JobConfig) -> list[Tracker]:
    """Returns the trackers that the config names; their files lie in the run folder."""
    about = RunDescription(
        name=config.run_name or folder.path.name, config=config, tags=tuple(config.tags or ())
    )
    return [_WRITERS[name](folder.path, about) for name in dict.fromkeys(config.logger or ())]


def end(job: Job, log: Log) -> bool:
    """Tells the trackers how the job ended; returns whether all know. If not, a line says why."""
    knows = True
    for tracker in job.trackers if job.peers.is_chief else ():
        try:
            tracker.end(job.status.word, _found(job.facts))
        except OSError as error:
            knows = False
            line = f"warning: {tracker.location} was not told of the end of the run: {error}"
            log.line(line, stream=sys.stderr)
    return knows


def _found(facts: dict[str, Any]) -> dict[str, float]:
    """Returns the numbers that a run found after its training, by name."""
    logs = facts.get("test_logs") or {}
    return {
        f"test/{name}": float(value)
        for name, value in logs.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
