"""Modes that read the folders of runs, without TensorFlow: see `FOLDER_MODES`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from gradloop.engine.options import ConfigError
from gradloop.engine.storage.extras import MissingExtra
from gradloop.files import DirectoryError, make_directory
from gradloop.usage import EXIT_USAGE

from . import pages, run_directory, run_list
from .config import JobConfig
from .reading import PROG


def run(config: JobConfig) -> int:
    """Runs the mode, and returns the exit code: 2 for what a person can mend, with one line."""
    try:
        MODES[config.mode](config)
    except (ConfigError, DirectoryError, OSError) as error:
        print(f"{PROG}: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    return 0


def report(config: JobConfig) -> None:
    """Writes report.html into the folder of a run."""
    path = pages.write(_existing(str(config.run_dir)))
    print(f"the page of the run is {path}")


def compare_runs(config: JobConfig) -> None:
    """Shows runs side by side, and writes a page and a picture of them."""
    paths = [_existing(name) for name in config.runs or ()]
    compared = pages.compare(paths)
    directory = _new_directory(config.run_dir)
    print(compared.to_text())
    page = compared.write_page(directory)
    try:
        picture = compared.draw(directory)
        print(f"the picture is {picture}")
    except MissingExtra as error:
        print(f"no picture: {error}")
    print(f"the page is {page}")


def _existing(name: str) -> Path:
    path = Path(name)
    if not path.is_dir() or not run_directory.holds_run(path):
        what = "holds no run" if path.is_dir() else "is not a folder"
        raise ConfigError(f"{name!r} {what}: name a folder such as those in runs/.")
    return path


def _new_directory(name: str | None) -> Path:
    if name is None:
        return run_directory.make_new("runs", model="several", dataset="runs")
    directory = make_directory(name)
    if run_directory.holds_run(directory):
        raise ConfigError(
            f"run_dir={name!r} holds a run, and a comparison has a folder of its own: name another."
        )
    return directory


MODES: dict[str, Callable[[JobConfig], None]] = {
    "report": report,
    "compare_runs": compare_runs,
    "runs": run_list.show,
}
