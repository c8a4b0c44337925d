"""What the files of a run say. They may be missing, damaged, or of another version."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]
KEYS = ("step", "epoch", "kind", "time")
LEARNING_RATE = "learning_rate"


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """What was read from the folder of a run; empty where there is nothing to read.

    Attributes:
      path: The folder.
      config: Of config.json.
      environment: Of environment.json.
      summary: Of summary.json; {} while the run is going on, too.
      later: Mode to what its summary says, of what was done with the run once it had ended.
      records: Rows of metrics.csv: `step`, `epoch`, `kind`, and the numbers there are.
      commands: The command of each start.
      log: Lines of train.log.
    """

    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    summary: dict[str, Any]
    later: dict[str, dict[str, Any]]
    records: list[Record]
    commands: list[str]
    log: list[str]

    @property
    def name(self) -> str:
        """What people call it."""
        return str(self.config.get("run_name") or self.path.resolve().name)

    @property
    def work(self) -> str:
        """The model and the dataset."""
        names = [self.summary.get(key) or self.config.get(key) for key in ("model", "dataset")]
        return " on ".join(str(name) for name in names if name) or "a run"

    @property
    def epochs(self) -> list[Record]:
        """Records of whole epochs in order, the later one where an epoch occurs twice."""
        by_epoch = {r["epoch"]: r for r in self.records if r["kind"] == "epoch"}
        return [by_epoch[epoch] for epoch in sorted(by_epoch)]

    @property
    def steps(self) -> list[Record]:
        """Records within epochs in order, the later one where a step occurs twice."""
        by_step = {r["step"]: r for r in self.records if r["kind"] == "execution"}
        return [by_step[step] for step in sorted(by_step)]


def read(path: str | Path) -> RunFiles:
    """Reads the folder of a run, whatever its state; nothing is raised."""
    path = Path(path)
    later = {
        file.name.split(".")[1]: read_json(file)
        for file in sorted(path.glob("summary.*.json"))
        if not file.name.split(".")[1].isdigit()  # of an earlier start
    }
    return RunFiles(
        path=path,
        config=read_json(path / "config.json"),
        environment=read_json(path / "environment.json"),
        summary=read_json(path / "summary.json"),
        later=later,
        records=_read_records(path / "metrics.csv"),
        commands=_read_lines(path / "command.txt"),
        log=_read_lines(path / "train.log"),
    )


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a file; {} if there is none."""
    try:
        value = json.loads(_read_text(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def number(value: object) -> float | None:
    """Returns a finite number as a float; None for all else, such as NaN written as a string."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def part(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns the object under a name; {} if something else is there."""
    value = values.get(name)
    return value if isinstance(value, dict) else {}


def _read_lines(path: Path) -> list[str]:
    try:
        return _read_text(path).splitlines()
    except OSError:
        return []


def _read_text(path: Path) -> str:
    """Returns a file's text; "" of what is no file, such as a device, which may never end."""
    return path.read_text("utf-8", errors="replace") if path.is_file() else ""


def _read_records(path: Path) -> list[Record]:
    rows = csv.DictReader(line.replace("\0", "") for line in _read_lines(path))
    try:
        records = [_record(row) for row in rows]
    except csv.Error:
        return []
    return [record for record in records if record is not None]


def _record(row: Mapping[str, Any]) -> Record | None:
    """Returns a row as numbers; None if it is torn. What is not a number is left out."""
    try:
        record: Record = {key: int(row[key]) for key in ("step", "epoch")}
        record["kind"] = row["kind"]
        for name, cell in row.items():
            if name not in record and isinstance(cell, str) and cell and not cell.startswith("["):
                record[name] = float(cell)
    except (KeyError, TypeError, ValueError):
        return None
    return record
