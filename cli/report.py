"""What a run shows and writes: banner and pictures."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradloop.engine.state import TrainState
from gradloop.engine.storage.extras import MissingExtra
from gradloop.engine.storage.writers import epoch_records
from gradloop.engine.strategy import describe_strategy

from . import pages, plots
from .config import JobConfig
from .log import Log
from .monitored import monitored
from .run_folder import RunFolder
from .summary import find_best


def format_banner(config: JobConfig, state: TrainState, **facts: str) -> str:
    """Returns the lines that open a run's output.

    Args:
      config: The run's.
      state: Built.
      **facts: More lines, name to text.
    """
    num_replicas = state.strategy.num_replicas_in_sync
    lines = {
        "model": f"{config.model}, {state.model.count_params():,} parameters",
        "devices": describe_strategy(state.strategy),
        "batch": f"{config.global_batch_size} global, "
        f"{config.global_batch_size / num_replicas:g} per replica",
        "precision": config.precision,
        "xla": "auto" if config.jit_compile is None else _xla(config),
        **facts,
    }
    return "\n".join(f"  {name:<10} {text}" for name, text in lines.items())


def _xla(config: JobConfig) -> str:
    return f"the {config.jit_scope}" if config.jit_compile else "off"


def draw_history(folder: RunFolder, log: Log, config: JobConfig, state: TrainState) -> None:
    """Draws the curves of the epochs in the folder's metrics.csv, if there is one."""
    if not folder.writes or not folder.draws or folder.suffix:
        return  # with a suffix, the curves are of the training that has ended
    records = folder.read_records(log)
    epochs = epoch_records(records)
    if epochs:
        best = find_best(epochs, state, *monitored(config))
        title = f"{config.model} on {config.dataset}: {folder.path.resolve().name}"
        path = folder.plots / "history.png"
        epoch = None if best is None else best["epoch"]
        draw(log, plots.plot_history, records, path, title=title, best_epoch=epoch)


def write_page(folder: RunFolder, log: Log) -> None:
    """Writes report.html. The run has ended: if the page fails, a warning says why, and no more."""
    if not folder.writes:
        return
    try:
        log.attempt(pages.write, folder.path)
    except Exception:
        reason = traceback.format_exc().rstrip()
        log.line(f"warning: report.html was not written: {reason}", stream=sys.stderr)


def draw(log: Log, plot: Callable[..., Path], *args: Any, **options: Any) -> None:
    """Draws a picture; says in a line why there is none if matplotlib or the disk is missing."""
    try:
        log.attempt(functools.partial(plot, *args, **options))
    except MissingExtra as error:
        log.line(f"no picture: {error}")
