"""The directory of a run: its name, and whether it holds a run already. Without TensorFlow."""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradloop.files import make_directory

# The first file of a run: the process that creates it owns the folder.
CLAIM = "command.txt"
_MAX_NAME = 80
_RUN_FILES = (CLAIM, "config.json", "environment.json", "history.json", "summary.json")


def make_new(
    root: str | os.PathLike[str], *, model: str, dataset: str, name: str | None = None
) -> Path:
    """Creates `<root>/<model>-<dataset>/<YYYYmmdd-HHMMSS>-<n>/`, which no other process owns.

    Args:
      root: Where the folders of runs lie.
      model: Of the run.
      dataset: Likewise.
      name: In place of the time; a second run of that name is `<name>-2`.

    Raises:
      ValueError: If it cannot be created.
    """
    parent = make_directory(Path(root) / f"{_file_name(model)}-{_file_name(dataset)}")
    for folder in _names(name):
        path = parent / folder
        try:
            path.mkdir()  # Succeeds in one process only.
        except FileExistsError:
            continue
        return path
    raise AssertionError("names do not end")


def _names(name: str | None) -> Iterator[str]:
    """Yields the names that a new folder may have, the first one first."""
    if name is None:
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        yield from (f"{now}-{number}" for number in itertools.count(1))
    else:
        yield _file_name(name)
        yield from (f"{_file_name(name)}-{number}" for number in itertools.count(2))


def holds_run(directory: Path) -> bool:
    """Returns whether a run has begun there."""
    return any((directory / name).exists() for name in _RUN_FILES)


def has_checkpoints(directory: Path) -> bool:
    """Returns whether a run has saved something, be it damaged and in quarantine by now."""
    files = (directory / "checkpoints").rglob("*.npz*")
    return any(path.suffix != ".tmp" for path in files)  # which a kill in the first save leaves


def read_summary(directory: Path) -> dict[str, Any]:
    """Returns what summary.json says; {} without one, or if it is damaged."""
    try:
        summary = json.loads((directory / "summary.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def checkpoints_of(path: Path) -> Path:
    """Returns the checkpoints in the folder of a run; another path as it is."""
    inner = path / "checkpoints"
    return inner if inner.is_dir() else path


def run_beside(checkpoint: Path) -> Path | None:
    """Returns the folder of the run that a checkpoint lies in; None if it lies alone.

    Args:
      checkpoint: The folder of a run, its folder of checkpoints, or a file in that.
    """
    inside = checkpoint if checkpoint.is_dir() else checkpoint.parent
    folder = inside.parent if inside.name == "checkpoints" else inside
    return folder if (folder / "config.json").is_file() else None


def refusal(directory: Path) -> str:
    """Returns what is to be said where a new run is to begin in such a directory."""
    return f"{directory} already holds a run: pass --resume to continue it, or name another folder."


def _file_name(text: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".") or "_"
    if len(name) > _MAX_NAME:  # a path, whose end says more; file systems allow some 255 in all
        name = f"{hashlib.sha256(text.encode()).hexdigest()[:8]}-{name[-_MAX_NAME:]}"
    return name
