"""What became of a run, from the files in its folder, whatever its state. Without TensorFlow."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gradloop import lock

from . import run_directory
from .pages import run_files
from .pages.best import Best, best_of
from .pages.run_files import RunFiles, number


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
      files: What was read.
      status: A word of summary.json; "running", "unfinished" (it was killed) or "damaged".
      best: Its best epoch; None without one.
    """

    files: RunFiles
    status: str
    best: Best | None

    @property
    def num_steps(self) -> int | None:
        """Steps that are done, as far as records tell."""
        steps = [self.files.summary.get("num_steps"), *(r["step"] for r in self.files.records)]
        return max((step for step in steps if isinstance(step, int)), default=None)

    @property
    def images_per_sec(self) -> float | None:
        """The speed without tracing, where it is known."""
        names = ("steady_images_per_sec", "images_per_sec")
        found = [number(self.files.summary.get(name)) for name in names]
        return next((speed for speed in found if speed is not None), None)

    @property
    def test_accuracy(self) -> float | None:
        """Of all of the test set."""
        return number(self.files.summary.get("test_accuracy"))

    @property
    def began(self) -> str:
        """When, in local time: as summary.json has it, or as old as config.json."""
        text = self.files.summary.get("started_at") or self.files.summary.get("ended_at")
        try:
            when = datetime.datetime.fromisoformat(str(text))
        except ValueError:
            when = datetime.datetime.fromtimestamp(_age(self.files.path))
        return when.strftime("%Y-%m-%d %H:%M:%S")

    @property
    def tags(self) -> list[str]:
        """Of config.json."""
        tags = self.files.config.get("tags")
        return [str(tag) for tag in tags] if isinstance(tags, list) else []


def read(path: Path, metric: str | None = None, direction: str | None = None) -> Outcome:
    """Reads the folder of a run; nothing is raised.

    Args:
      path: The folder.
      metric: By which an epoch is the best; see `best_of`.
      direction: "min" or "max"; see `best_of`.
    """
    files = run_files.read(path)
    return Outcome(files, _status(files), best_of(files, metric, direction))


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns lines of columns; those of numbers are aligned at their right.

    Example:
      >>> print(format_table(["run", "loss"], [["001", "0.5"], ["002", "12"]]))
      run  loss
      001   0.5
      002    12
    """
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    columns = list(zip(*cells, strict=True))
    lines = []
    widths = [max(map(len, column)) for column in columns]
    is_number = [all(_is_number(cell) for cell in column[1:]) for column in columns]
    for row in cells:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _is_number(cell: str) -> bool:
    return cell in ("", "-") or number(cell.replace(",", "")) is not None


def _status(files: RunFiles) -> str:
    damaged = [
        name for name in ("config", "summary")
        if (files.path / f"{name}.json").exists() and not getattr(files, name)
    ]  # fmt: skip
    if damaged:
        return "damaged"
    if not run_directory.holds_run(files.path):
        return "not started"
    if files.summary:
        return str(files.summary.get("status") or "ended")
    return "running" if lock.is_held(files.path) else "unfinished"


def _age(path: Path) -> float:
    """Returns when a run began, in seconds: its first files are never written again."""
    for name in ("command.txt", "config.json", ""):
        try:
            return (path / name).stat().st_mtime
        except OSError:
            continue
    return 0.0


def describe_best(best: Best | None, digits: int = 4) -> str:
    """Returns the best epoch in words."""
    return "-" if best is None else f"{best.metric} {best.value:.{digits}f} in epoch {best.epoch}"


def plain(outcome: Outcome) -> dict[str, Any]:
    """Returns what JSON can hold of an outcome."""
    config, summary = outcome.files.config, outcome.files.summary
    return {
        "folder": str(outcome.files.path),
        "run_name": config.get("run_name"),
        "began": outcome.began,
        "status": outcome.status,
        "model": summary.get("model") or config.get("model"),
        "dataset": summary.get("dataset") or config.get("dataset"),
        "best": outcome.best and outcome.best._asdict(),
        "test_accuracy": outcome.test_accuracy,
        "num_steps": outcome.num_steps,
        "images_per_sec": outcome.images_per_sec,
        "tags": outcome.tags,
    }
