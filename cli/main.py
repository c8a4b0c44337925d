"""main: flags -> config -> parts -> one call -> exit code."""
# ruff: noqa: E402 - TensorFlow must be imported quietly before anything else imports it.

from __future__ import annotations

import contextlib
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from .quiet import import_quietly

import_quietly()

import tensorflow as tf

from gradloop import engine, signals
from gradloop.engine.checks import findings
from gradloop.engine.workers.peers import Peers
from gradloop.files import explain
from gradloop.usage import EXIT_USAGE

from . import folder_modes, report, resuming, summary, together, trackers
from .config import FOLDER_MODES, JobConfig
from .job import Job, Status
from .log import Log, warnings_as_lines
from .modes import MODES
from .monitored import monitored
from .opening import enter, open_folder
from .reading import PROG, Settings, read_config
from .resuming import Plan
from .run_folder import RunFolder
from .splits import describe_splits, load_splits
from .work.parts import Work


def main(
    argv: Sequence[str] | None = None,
    *,
    settings: Settings | None = None,
    started_at: float | None = None,
) -> int:
    """Runs what the flags ask for.

    SIGINT and SIGTERM end it soon, a second one at once: see `gradloop.signals`.

    Args:
      argv: The command line without the program's name. Default: `sys.argv[1:]`.
      settings: What `read_config` has returned. Default: it reads the command line now.
      started_at: The `time.monotonic()` from which `max_time` counts, and which summary.json names.
        Default: now.

    Returns:
      The exit code. 0: success, also of a run that ended after `max_time`. 1: the training
      diverged, the comparison differs, no checkpoint is good (with `--resume auto`), a file could
      not be written (with `--on_save_error stop`), or a bug, whose traceback is printed. 2: wrong
      usage, explained in one line. 130 and 143: interrupted by SIGINT or SIGTERM; what was done is
      saved. 75: one of several workers whose peers are gone.
    """
    began = time.monotonic() if started_at is None else started_at
    with signals.caught(), signals.listening(signals.note), contextlib.ExitStack() as stack:
        resume: bool | str = False
        try:
            with signals.listening(signals.interrupt):
                if settings is None:
                    settings = read_config(sys.argv[1:] if argv is None else argv)
                config, choice = settings.config, settings.choice
                _check_alone(config)
                resume = config.resume
                stack.enter_context(together.ending_alone(config))
                if config.mode in WITHOUT_A_RUN:
                    return WITHOUT_A_RUN[config.mode](config)
                job = set_up(config, choice, stack)
            if job is None:
                return Status.COMPLETED.exit_code
            job.started_at = started_at
            folder = open_folder(job, stack)
        except KeyboardInterrupt:
            print(f"{signals.cleared(sys.stderr)}{PROG}: interrupted", file=sys.stderr)
            return 128 + (signals.number() or signal.SIGINT)
        except Exception as error:
            return _refuse(error, restarts=resume == "auto")
        with folder.open_log() as log, warnings_as_lines(log):
            log.is_quiet = config.quiet
            with signals.heard_by(lambda number: log.announce(job.heard(number))):
                run(job, folder, log)
            is_refused = job.status is Status.REFUSED and folder.has_only_begun
            is_written = is_refused or _finish(job, folder, log, began)
        if is_refused:
            folder.discard()
        if not job.has_left:
            together.part(job.peers, config)
        is_fatal = not is_written and config.on_save_error == "stop"
        return job.exit_code or (Status.FAILED.exit_code if is_fatal else 0)


def _finish(job: Job, folder: RunFolder, log: Log, began: float) -> bool:
    """Writes what the run has come to, and shows it; returns whether it could be written."""
    draw(job, folder, log)
    is_written = trackers.end(job, log)
    facts = summary.identify(job.config, began) | job.facts
    is_written &= summary.finish(folder, log, job.state, facts, *monitored(job.config))
    report.write_page(folder, log)
    return is_written


def _refuse(error: Exception, *, restarts: bool) -> int:
    """Says in one line why there is no run; raises a bug again.

    Args:
      error: A wrong setting, a checkpoint that cannot be used, or a file that cannot.
      restarts: Whether the command is one of a loop of restarts.

    Returns:
      The exit code.
    """
    is_explained = isinstance(error, engine.ConfigError | engine.CheckpointError)
    line = str(error) if is_explained else explain(error)
    if line is None:
        raise error
    print(f"{PROG}: error: {line}", file=sys.stderr)
    # In a loop of restarts nothing is wrong with the usage, and it must not start anew.
    is_fault = restarts and not isinstance(error, engine.ConfigError)
    return Status.FAILED.exit_code if is_fault else EXIT_USAGE


def _check_alone(config: JobConfig) -> None:
    if config.num_workers is not None:
        raise engine.ConfigError(
            f"num_workers={config.num_workers} starts the processes of the workers, which the "
            "command does, and not this function: call python train.py."
        )


def set_up(config: JobConfig, choice: Path | None, stack: contextlib.ExitStack) -> Job | None:
    """Prepares the devices, the data and the state; the folder is created later.

    So an error here, which is wrong usage, leaves nothing behind.

    Args:
      config: All settings.
      choice: See `Job`.
      stack: Takes the lock of a folder that exists.

    Returns:
      The job; None if all was done before.
    """
    strategy, peers = prepare(config)
    config, plan = enter(config, peers, stack)
    if plan is Plan.NOTHING:
        print(f"{PROG}: all was done before: {resuming.describe_result(config)}")
        together.part(peers, config)
        return None
    job = make_job(config, strategy)
    job.choice, job.plan = choice, plan
    trackers.check(config)
    job.start()
    together.check_start(peers, job.state.progress.num_steps_completed)
    signals.check()  # something may have swallowed what was raised
    return job


def prepare(config: JobConfig) -> tuple[tf.distribute.Strategy, Peers]:
    """Sets the process up for a config, and returns where it trains, and with whom."""
    engine.configure_runtime(config)
    try:
        return together.meet(config)
    except ValueError as error:
        raise engine.ConfigError(str(error)) from error


def make_job(config: JobConfig, strategy: tf.distribute.Strategy) -> Job:
    """Returns the parts that a config names, without a state."""
    splits = load_splits(config)
    return Job(config, Work(config, splits.input_shape, splits.num_classes), splits, strategy)


def check(config: JobConfig) -> int:
    """Shows what `engine.check_setup` finds, and returns 2 if something is unsupported, or 0."""
    strategy, peers = prepare(config)
    job = make_job(config, strategy)
    with job.strategy.scope():
        job.state = job.make_state()
    found = job.check_setup()
    print(findings.to_table(found))
    together.part(peers, config)
    return 0 if findings.is_supported(found) else EXIT_USAGE


def _refuse_sweep(config: JobConfig) -> int:
    raise engine.ConfigError(
        "mode='sweep' starts the processes of its runs, which the command does, and not this "
        "function: call python train.py."
    )


WITHOUT_A_RUN: dict[str, Callable[[JobConfig], int]] = {
    "check": check,
    "sweep": _refuse_sweep,
    **dict.fromkeys(FOLDER_MODES, folder_modes.run),
}


def run(job: Job, folder: RunFolder, log: Log) -> None:
    """Runs the mode; the job records how it ends."""
    # What one of several workers raises alone leaves the others waiting: all are asked instead.
    listener = signals.interrupt if job.peers.is_alone else signals.note
    try:
        with signals.listening(listener):
            begin(job, folder, log)
            MODES[job.config.mode](job, folder, log)
    except KeyboardInterrupt:
        job.end(Status.INTERRUPTED)
    except engine.ConfigError as error:
        job.end(Status.REFUSED, str(error))
        log.line(f"{PROG}: error: {error}", stream=sys.stderr)
    except Exception as error:
        if not job.peers.is_alone and together.is_loss(error):
            raise
        job.end(Status.FAILED, f"{type(error).__name__}: {error}")
        line = explain(error)
        text = traceback.format_exc().rstrip() if line is None else f"{PROG}: error: {line}"
        log.line(text, stream=sys.stderr)


def draw(job: Job, folder: RunFolder, log: Log) -> None:
    """Draws the curves of a training; one that is interrupted here is not complete."""
    try:
        with signals.listening(signals.interrupt if job.peers.is_alone else signals.note):
            report.draw_history(folder, log, job.config, job.state)
    except KeyboardInterrupt:
        if job.exit_code == 0:
            job.end(Status.INTERRUPTED)


def begin(job: Job, folder: RunFolder, log: Log) -> None:
    """Writes config.json and environment.json, and shows the banner."""
    lines = {"data": f"{job.config.dataset}, {describe_splits(job.splits)}"}
    if job.config.run_name is not None:
        lines["run"] = job.config.run_name
    if job.restored is not None:
        lines["restored"] = str(job.restored)
    if job.work.guessed_loss:
        lines["loss"] = job.work.guessed_loss
    if job.initial:
        lines["initial"] = job.initial
    if job.choice is not None:
        lines["tuned"] = str(job.choice)
    log.line(report.format_banner(job.config, job.state, **lines))
    if job.config.mode == "train":
        for line in findings.warning_lines(job.check_setup()):
            log.line(f"warning: {line}", stream=sys.stderr)
        _describe_start(job, folder, log)
    log.attempt(folder.write_config, resuming.recorded(job.config, job.plan))
    log.attempt(folder.write_environment)


def _describe_start(job: Job, folder: RunFolder, log: Log) -> None:
    """Says how the run begins, and sets aside what an earlier start has left."""
    if job.plan is Plan.START_ANEW:
        log.line("nothing was saved yet: the run starts anew")
        log.attempt(folder.set_aside_all)
    for line in resuming.describe_changes(job.config) if job.plan is Plan.GO_ON else ():
        log.line(line)
    # While a run is going on, there is no result: the one of before is not of it.
    for name in ("summary.json", "predictions.npz", "predictions.csv"):
        log.attempt(folder.set_aside, name)
