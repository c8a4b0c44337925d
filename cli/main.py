"""main: flags -> config -> parts -> one call -> exit code."""
# ruff: noqa: E402 - TensorFlow must be imported quietly before anything else imports it.

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from .quiet import import_quietly

import_quietly()

from gradloop import data, engine
from gradloop.engine.tuning.choice import apply_choice
from gradloop.files import json_text
from gradloop.models import registry
from gradloop.usage import EXIT_USAGE

from . import report
from .config import JobConfig, choice_key
from .flags import make_config, read_choices
from .job import MODES, Job, Status
from .log import Log
from .run_folder import RunFolder

PROG = "gradloop" if Path(sys.argv[0]).stem == "gradloop" else "train.py"
DESCRIPTION = "Trains a Keras model and gives the numbers of keras.Model.fit."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what the flags ask for.

    Args:
      argv: The command line without the program's name. Default: `sys.argv[1:]`.

    Returns:
      The exit code. 0: success. 1: the training diverged, the comparison differs, or a bug, whose
      traceback is printed. 2: wrong usage, explained in one line. 130: interrupted; what was done
      is saved.
    """
    try:
        config, choice = read_config(sys.argv[1:] if argv is None else argv)
        job, folder = set_up(config, choice)
    except (engine.ConfigError, engine.CheckpointError) as error:
        print(f"{PROG}: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print(f"{PROG}: interrupted", file=sys.stderr)
        return Status.INTERRUPTED.exit_code
    with folder.open_log() as log:
        run(job, folder, log)
        report.finish(folder, log, job.state, job.facts)
    return job.status.exit_code


def read_config(argv: Sequence[str]) -> tuple[JobConfig, Path | None]:
    """Merges defaults < recipe < the choice of `--tune` < what a person chose.

    `--print_config` prints the result and exits.

    Returns:
      The config, and the file of the `--tune` choice if it changed something.
    """
    chosen = read_choices(argv, prog=PROG, description=DESCRIPTION)
    prints = chosen.pop("print_config", False)
    try:
        recipe = registry.get(chosen.get("model", JobConfig.model))
    except ValueError as error:
        raise engine.ConfigError(str(error)) from error
    config = make_config(recipe.defaults, chosen)
    choice = None
    if config.mode == "train":
        config, choice = apply_choice(config, choice_key(config), chosen)
    if prints:
        print(json_text(config, indent=2))
        sys.exit(0)
    return config, choice


def set_up(config: JobConfig, choice: Path | None) -> tuple[Job, RunFolder]:
    """Prepares the devices, the data and the state, and creates the folder last.

    So an error here, which is wrong usage, leaves nothing behind.
    """
    engine.configure_runtime(config)
    try:
        strategy = engine.make_strategy(config)
        arrays = data.load(config.dataset, config.data_dir)
    except ValueError as error:
        raise engine.ConfigError(str(error)) from error
    job = Job(config, registry.get(config.model), arrays, strategy, choice=choice)
    job.start()
    try:
        if config.run_dir is not None:
            return job, RunFolder.at(config.run_dir, resume=config.resume)
        return job, RunFolder.create("runs", model=config.model, dataset=config.dataset)
    except ValueError as error:
        raise engine.ConfigError(str(error)) from error


def run(job: Job, folder: RunFolder, log: Log) -> None:
    """Runs the mode; the job records how it ends."""
    try:
        begin(job, folder, log)
        MODES[job.config.mode](job, folder, log)
    except KeyboardInterrupt:
        job.end(Status.INTERRUPTED)
    except engine.ConfigError as error:
        job.end(Status.REFUSED, str(error))
        log.line(f"{PROG}: error: {error}", stream=sys.stderr)
    except Exception as error:
        job.end(Status.FAILED, f"{type(error).__name__}: {error}")
        log.line(traceback.format_exc().rstrip(), stream=sys.stderr)


def begin(job: Job, folder: RunFolder, log: Log) -> None:
    """Writes config.json and environment.json, and shows the banner."""
    folder.write_config(job.config)
    folder.write_environment()
    num_train, num_test = len(job.arrays.x_train), len(job.arrays.x_test)
    lines = {"data": f"{job.config.dataset}, {num_train:,} training and {num_test:,} test examples"}
    if job.restored is not None:
        lines["restored"] = str(job.restored)
    if job.choice is not None:
        lines["tuned"] = str(job.choice)
    log.line(report.format_banner(job.config, job.state, **lines))
