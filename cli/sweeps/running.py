"""Runs of a sweep in turn: each is a process of its own, because TensorFlow's state is too."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gradloop import lock, signals
from gradloop.engine.options import ConfigError
from gradloop.engine.storage.extras import MissingExtra
from gradloop.files import explain, json_text, write_atomically
from gradloop.usage import EXIT_USAGE

from .. import run_directory
from ..metric_directions import direction_of
from ..outcomes import Outcome, describe_best, format_table
from ..reading import PROG, Settings, check_settings
from ..settings.sweeping import METRIC_SETTINGS
from ..variables import without_variables
from ..workers.processes import make_beginning
from . import space
from .folder import SweepFolder, SweepRun, describe_values, open_folder, read_outcomes, show

_POLL_SECS = 0.05
_GOOD = ("completed", "stopped", "paused")
# What is of the sweep as a whole, and not of its runs.
_NOT_OF_RUNS = (
    "mode", "run_dir", "resume", "run_name", "set", "search", "num_runs", "metric", "config",
)  # fmt: skip


def run(settings: Settings, program: Sequence[str]) -> int:
    """Runs a sweep.

    The first SIGINT or SIGTERM is passed to the run that is going on, which is saved; no other one
    begins.

    Args:
      settings: Of the sweep.
      program: What starts a process of the command line, without arguments.

    Returns:
      The exit code: 0 if all runs ended well, 1 if one did not or a file could not be written, 2
      for wrong usage, 130 or 143 if it was interrupted.
    """
    code = EXIT_USAGE
    with contextlib.ExitStack() as stack:
        try:
            folder = _prepare(settings, stack)
            code = 1
            say = _Speaker(settings.config.quiet)
            with signals.listening(signals.note):
                for number, one in enumerate(folder.runs, start=1):
                    if signals.number() is None:
                        _run_one(folder, one, f"run {number} of {len(folder.runs)}", program, say)
            return _finish(folder, settings)
        except Exception as error:
            line = str(error) if isinstance(error, ConfigError) else explain(error)
            if line is None:
                raise
            print(f"{PROG}: error: {line}", file=sys.stderr)
            return code


class _Speaker:
    """Prints lines, unless it is quiet."""

    def __init__(self, is_quiet: bool) -> None:
        self.is_quiet = is_quiet

    def __call__(self, line: str) -> None:
        if not self.is_quiet:
            print(line, flush=True)


def _prepare(settings: Settings, stack: contextlib.ExitStack) -> SweepFolder:
    """Checks the settings of each run, and returns the folder, which is locked from here on."""
    config = settings.config
    named = config.metric or config.keep_best or config.early_stopping
    if named is not None and direction_of(named, config.direction) is None:
        raise ConfigError(
            f"it is not known whether more or less of {named!r} is better: add direction='max' or "
            "direction='min'."
        )
    base = {name: v for name, v in settings.chosen.items() if name not in _NOT_OF_RUNS}
    combinations = space.combinations(config)
    runs = [space.apply(base, values) for values in combinations]
    of_runs = {one.get(name) for one in runs for name in METRIC_SETTINGS} - {None}
    if config.metric is not None and of_runs != {config.metric}:
        base.pop("direction", None)  # it is of `metric`
    for values in combinations:
        try:
            check_settings(space.apply(base, values))
        except ConfigError as error:
            raise ConfigError(f"with {describe_values(values)}: {error}") from error
    folder = open_folder(config, base, combinations)
    with contextlib.suppress(lock.NoLock):
        stack.enter_context(lock.locked(folder.path))
    folder.save()
    return folder


def _run_one(
    folder: SweepFolder, one: SweepRun, which: str, program: Sequence[str], say: _Speaker
) -> None:
    if folder.is_done(one):
        say(f"{which}, {one.describe()}: it was done before")
        return
    say(f"{which}, {one.describe()}")
    file = folder.path / f"{one.path.name}.json"
    text = json_text(folder.settings_of(one), indent=2) + "\n"
    write_atomically(file, lambda stream: stream.write(text))
    environment = without_variables(os.environ)
    environment.setdefault("WANDB_RUN_GROUP", folder.path.name)
    before = run_directory.read_summary(one.path)
    code = _wait([*program, "--config", str(file)], environment, hides_output=say.is_quiet)
    if code == EXIT_USAGE:
        folder.refused.add(one.path.name)
    elif code == 0 or run_directory.read_summary(one.path) != before:
        folder.note_end(one)


def _wait(command: Sequence[str], environment: Mapping[str, str], *, hides_output: bool) -> int:
    """Runs a command until it ends, passes the first signal to it, and returns its exit code."""
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if hides_output else None,
        start_new_session=True,  # a terminal sends Ctrl-C to this process alone
        preexec_fn=make_beginning(),  # noqa: PLW1509 - it makes two system calls
    ) as process:
        with signals.ending_with(process.kill):
            has_passed_on = False
            while process.poll() is None:
                if signals.number() is not None and not has_passed_on:
                    has_passed_on = True
                    process.send_signal(signal.SIGINT)
                time.sleep(_POLL_SECS)
        return process.returncode


def _finish(folder: SweepFolder, settings: Settings) -> int:
    """Shows and writes what became of the runs, and returns the exit code."""
    config = settings.config
    found = read_outcomes(folder, config.metric, config.direction)
    print(to_table(found), flush=True)
    folder.write_table(found)
    if config.plots is not False:
        _attempt(lambda: _draw(folder, found))
    print(f"Everything is in {folder.path}", flush=True)
    number = signals.number()
    if number is not None:
        num_done = sum(folder.is_done(one) for one in folder.runs)
        print(
            f"{PROG}: interrupted: {num_done} of {len(folder.runs)} runs are done; the same "
            f"command with --run_dir {shlex.quote(str(folder.path))} --resume auto goes on",
            file=sys.stderr,
        )
        return 128 + number
    return 0 if all(outcome.status in _GOOD for _, outcome in found) else 1


def _attempt(draw: Callable[[], object]) -> None:
    try:
        draw()
    except (MissingExtra, OSError, ValueError) as error:
        print(f"no picture: {error}")


def _draw(folder: SweepFolder, found: Sequence[tuple[SweepRun, Outcome]]) -> Path | None:
    from ..plots.sweep import plot_sweep

    known = [(run.values, outcome.best) for run, outcome in found if outcome.best is not None]
    metric = known[0][1].metric if known else ""  # by which the runs are in order
    points: list[tuple[dict[str, Any], float]] = [
        (values, best.value) for values, best in known if best.metric == metric
    ]
    return plot_sweep(points, metric, folder.path / "sweep.png") if points else None


def to_table(found: Sequence[tuple[SweepRun, Outcome]]) -> str:
    """Returns the runs as a table, in their order."""
    names = list(dict.fromkeys(name for run, _ in found for name in run.values))
    names = [n for n in names if len({show(run.values.get(n)) for run, _ in found}) > 1] or names
    header = ["run", *names, "best", "status", "steps", "images/s"]
    rows = [
        [
            run.path.name,
            *(show(run.values.get(name, "-")) for name in names),
            describe_best(outcome.best),
            outcome.status,
            "-" if outcome.num_steps is None else f"{outcome.num_steps:,}",
            "-" if outcome.images_per_sec is None else f"{outcome.images_per_sec:,.0f}",
        ]
        for run, outcome in found
    ]
    return format_table(header, rows)
