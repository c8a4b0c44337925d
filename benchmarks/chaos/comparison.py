"""Compares what two runs left behind: variables, history, tables, summary, digests."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

TABLES = ("metrics.csv", "metrics.jsonl", "digests.csv")
CHECKPOINTS = ("final.npz", "best.npz")
# What depends on the time, the machine, and how often the run was begun.
NOT_COMPARED = {
    "images_per_sec", "num_traces", "traces", "timing", "memory", "peak_memory_bytes",
    "device_peak_memory_bytes", "train_secs", "started_at", "ended_at", "steady_images_per_sec",
}  # fmt: skip
_METADATA = "metadata"


@dataclasses.dataclass
class Comparison:
    """What was found.

    Attributes:
      differences: A line each; none: the runs are equal.
      counts: What was compared, name to number.
    """

    differences: list[str] = dataclasses.field(default_factory=list)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)

    def take(self, what: str, count: int, differences: Iterable[str]) -> None:
        """Adds what was found of a part of the runs."""
        self.counts[what] = self.counts.get(what, 0) + count
        self.differences += [f"{what}: {difference}" for difference in differences]


def compare_runs(run: Path, reference: Path) -> Comparison:
    """Compares a run folder with another, all but times, memory and traces.

    Args:
      run: Of the run that was killed.
      reference: Of the one that was not.
    """
    found = Comparison()
    _compare_checkpoints(found, run / "checkpoints", reference / "checkpoints")
    for name in TABLES:
        if (run / name).exists() or (reference / name).exists():
            found.take(name, *_compare_lines(run / name, reference / name))
    for name in ("history.json", "summary.json"):
        mine, others = (_read_json(folder / name, run, reference) for folder in (run, reference))
        found.take(name, len(others), _differences_of_dicts(mine, others))
    found.take("TensorBoard", *_compare_events(run / "tensorboard", reference / "tensorboard"))
    leftovers = [path.relative_to(run) for path in run.rglob("*.tmp")]
    found.take("files", 0, (f"{path} was left behind" for path in leftovers))
    return found


def compare_digests(run: Path, other: Path) -> tuple[bool, str]:
    """Returns whether two tables of digests are equal, and in words where they first differ.

    Args:
      run: A run folder, or its digests.csv.
      other: Likewise.

    Raises:
      ValueError: If there is no table, or it is none.
    """
    tables = [_read_digests(path) for path in (run, other)]
    for step in sorted(tables[0].keys() | tables[1].keys()):
        mine, others = (table.get(step, "missing") for table in tables)
        if mine != others:
            return False, f"the first difference is at step {step}: {mine[:12]}, {others[:12]}"
    return True, f"equal: {len(tables[0])} digests" + (
        f", the last one of step {max(tables[0])}" if tables[0] else ""
    )


def _read_digests(path: Path) -> dict[int, str]:
    path = path / "digests.csv" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"there is no table {path}: run with --state_digest N.")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    if not rows or rows[0] != ["step", "sha256"] or any(len(row) != 2 for row in rows):
        raise ValueError(f"{path} is no table of digests: name one that --state_digest has made.")
    return {int(step): digest for step, digest in rows[1:]}


def _compare_checkpoints(found: Comparison, run: Path, reference: Path) -> None:
    names = [_checkpoint_names(folder) for folder in (run, reference)]
    if names[0] != names[1] or not names[1]:
        found.take("checkpoints", 0, [f"{names[0]} instead of {names[1]}"])
        return
    for name in names[1]:
        found.take(f"variables of {name}", *_compare_variables(run / name, reference / name))


def _checkpoint_names(folder: Path) -> list[str]:
    """Returns the newest checkpoint, and those with names of their own."""
    numbered = sorted(folder.glob("ckpt-*.npz"), key=lambda path: int(path.stem[len("ckpt-") :]))
    own = [name for name in CHECKPOINTS if (folder / name).exists()]
    return [path.name for path in numbered[-1:]] + own


def _compare_variables(mine: Path, others: Path) -> tuple[int, list[str]]:
    arrays = [_read_arrays(path) for path in (mine, others)]
    texts = [{name: _bits(array) for name, array in one.items()} for one in arrays]
    return len(arrays[1]), list(_differences_of_dicts(*texts))


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    # Not what the engine reads: a fault of its reader would hide itself.
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files if name.startswith("replica")}
        metadata = json.loads(file[_METADATA].tobytes())
    return arrays | {f"progress/{k}": np.asarray(str(v)) for k, v in metadata["progress"].items()}


def _bits(array: np.ndarray) -> str:
    text = array.tobytes().hex()
    return f"{array.dtype} {array.shape} {text}"


def _compare_lines(mine: Path, others: Path) -> tuple[int, list[str]]:
    """Returns the number of lines, and the first that differs byte for byte, but for its time."""
    lines = [_lines_without_time(path) for path in (mine, others)]
    for number, pair in enumerate(itertools.zip_longest(*lines, fillvalue=b""), 1):
        if pair[0] != pair[1]:
            shown = " instead of ".join(repr(line.decode(errors="replace"))[:100] for line in pair)
            return len(lines[1]), [f"line {number} is {shown}"]
    return len(lines[1]), []


def _lines_without_time(path: Path) -> list[bytes]:
    """Returns the lines of a table with an empty time; [] if it does not exist."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    if path.suffix == ".jsonl":
        return [re.sub(rb'"time": [0-9.]+', b'"time": ""', line) for line in lines]
    header = lines[0].strip().split(b",") if lines else []
    if b"time" not in header:
        return lines
    # The columns before it hold no commas.
    before = b"[^,]*," * header.index(b"time")
    return [re.sub(rb"^(%s)[0-9.]+" % before, rb"\1", line) for line in lines]


def _read_json(path: Path, *folders: Path) -> dict[str, Any]:
    """Returns what is compared of a file, without the names of the folders."""
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8")
    for folder in folders:
        text = text.replace(str(folder), "RUN")
    return {k: v for k, v in json.loads(text).items() if k not in NOT_COMPARED}


def _differences_of_dicts(mine: Mapping[str, Any], others: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(mine.keys() | others.keys()):
        if name not in mine or name not in others:
            yield f"{name} is missing {'here' if name not in mine else 'there'}"
        elif mine[name] != others[name]:
            yield f"{name} is {str(mine[name])[:100]} instead of {str(others[name])[:100]}"


def _compare_events(run: Path, reference: Path) -> tuple[int, list[str]]:
    """Compares what TensorBoard shows, in any order: step, name and bytes, each as often."""
    if importlib.util.find_spec("tensorboard") is None:
        return 0, []
    events = [sorted(_events(folder)) for folder in (run, reference)]
    for mine, others in itertools.zip_longest(*events):
        if mine != others:
            shown = [None if event is None else event[:2] for event in (mine, others)]
            return len(events[1]), [f"{shown[0]} instead of {shown[1]}"]
    return len(events[1]), []


def _events(folder: Path) -> Iterator[tuple[int, str, bytes]]:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    for path in folder.rglob("events.out.tfevents.*"):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                yield event.step, f"{path.parent.name}/{value.tag}", value.SerializeToString()
