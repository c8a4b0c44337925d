"""`--mode runs`: the runs in a folder, newest first. Without TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from gradloop.engine.options import ConfigError
from gradloop.files import json_text

from . import outcomes, run_directory
from .config import JobConfig
from .outcomes import Outcome, describe_best

ROOT = "runs"
_HEADER = (
    "run", "began", "status", "model", "dataset", "best", "steps", "images/s", "tags",
)  # fmt: skip


def show(config: JobConfig) -> None:
    """Prints the runs below `run_dir` or `runs/`, as a table or as JSON.

    Raises:
      ConfigError: If there is no such folder.
    """
    root = Path(config.run_dir or ROOT)
    if not root.is_dir() and config.run_dir is not None:
        raise ConfigError(f"run_dir={config.run_dir!r} is no folder: name one that holds runs.")
    wanted = set(config.tags or ())
    found = [outcomes.read(path, config.metric, config.direction) for path in find(root)]
    found = [one for one in found if wanted <= set(one.tags)]
    found.sort(key=lambda one: one.began, reverse=True)
    if config.json:
        print(json_text([outcomes.plain(one) for one in found], indent=2))
    elif found:
        print(outcomes.format_table(_HEADER, [_row(one, root) for one in found]))
    else:
        tagged = f" with the tags {', '.join(sorted(wanted))}" if wanted else ""
        print(f"there are no runs{tagged} in {root}")


def find(root: Path) -> Iterator[Path]:
    """Yields the folders of runs at or below a folder."""
    for directory, names, _ in os.walk(root):
        if run_directory.holds_run(Path(directory)):
            names.clear()  # a run holds no other
            yield Path(directory)
        names.sort()


def _row(one: Outcome, root: Path) -> tuple[str, ...]:
    speed, steps = one.images_per_sec, one.num_steps
    known = outcomes.plain(one)
    path = one.files.path
    return (
        path.name if path == root else str(path.relative_to(root)),
        one.began,
        one.status,
        str(known["model"] or "-"),
        str(known["dataset"] or "-"),
        describe_best(one.best),
        "-" if steps is None else f"{steps:,}",
        "-" if speed is None else f"{speed:,.0f}",
        ",".join(one.tags),
    )
