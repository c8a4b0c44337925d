"""The folder of a run: entered under a lock, and opened once there is a run."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path

from gradloop import engine, lock
from gradloop.engine.workers.peers import Peers

from . import resuming, run_directory, together
from .config import JobConfig
from .job import Job
from .reading import PROG
from .resuming import Plan
from .run_folder import RunFolder


def enter(config: JobConfig, peers: Peers, stack: contextlib.ExitStack) -> tuple[JobConfig, Plan]:
    """Locks the folder of the run, if it exists, and finds out what is to be done there.

    Returns:
      The config for this start, and the plan. Of several workers, both are the chief's.
    """

    def look() -> tuple[str | None, str]:
        if config.run_dir is not None and Path(config.run_dir).is_dir():
            _lock(Path(config.run_dir), stack)
        return config.run_dir, resuming.make_plan(config).value

    run_dir, word = together.ask_chief(peers, look)
    plan = Plan(word)
    if plan is Plan.GO_ON and config.resume == "auto":
        config = dataclasses.replace(config, profile=None)  # its steps are of the first start
    return dataclasses.replace(config, run_dir=run_dir), plan


def open_folder(job: Job, stack: contextlib.ExitStack) -> RunFolder:
    """Creates the folder of a job that has started, or continues the run in it.

    From here on there is a run, which ends with a summary: no signal is raised. Of several workers,
    the chief does it, and the others write nothing there.
    """
    config = job.config
    path, suffix, made = together.ask_chief(job.peers, lambda: _make_folder(config, stack))
    folder = RunFolder(
        Path(path), suffix, writes=job.peers.is_chief, draws=config.plots is not False
    )
    folder.made = None if made is None else [Path(directory) for directory in made]
    return folder


def _make_folder(
    config: JobConfig, stack: contextlib.ExitStack
) -> tuple[str, str, list[str] | None]:
    """Returns the folder, what the names of its JSON files get where a run has its own, and `made`.

    The last is an attribute of `RunFolder`.
    """
    suffix = "" if config.mode == "train" or not _is_of_a_run(config) else f".{config.mode}"
    try:
        if config.run_dir is None:
            folder = RunFolder.create(
                "runs", model=config.model, dataset=config.dataset, name=config.run_name
            )
        else:
            is_new = not Path(config.run_dir).exists()
            folder = RunFolder.at(
                config.run_dir, resume=bool(config.resume or suffix), suffix=suffix
            )
        if config.run_dir is None or is_new:
            _lock(folder.path, stack)
    except ValueError as error:
        raise engine.ConfigError(str(error)) from error
    made = None if folder.made is None else [str(directory) for directory in folder.made]
    return str(folder.path), suffix, made


def _is_of_a_run(config: JobConfig) -> bool:
    """Returns whether the folder holds a run, beside which the files of this mode may lie."""
    if config.run_dir is None or config.checkpoint is None:
        return bool(config.resume)
    return run_directory.holds_run(Path(config.run_dir))


def _lock(directory: Path, stack: contextlib.ExitStack) -> None:
    try:
        stack.enter_context(lock.locked(directory))
    except lock.NoLock as error:
        print(f"{PROG}: warning: {error} Let no second process use it.", file=sys.stderr)
    except ValueError as error:
        raise engine.ConfigError(str(error)) from error
