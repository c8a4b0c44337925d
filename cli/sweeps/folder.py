"""The folder of a sweep: its runs in sweep.json, a folder each, a table of what became of them."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradloop.engine.options import ConfigError
from gradloop.files import json_text, make_directory, write_atomically

from .. import outcomes, run_directory
from ..config import JobConfig
from ..metric_directions import direction_of
from ..outcomes import Outcome
from ..pages.best import metrics_of
from . import space

FILE = "sweep.json"
# Another start would end in the same way.
DONE = ("completed", "stopped", "diverged")


@dataclasses.dataclass(frozen=True)
class SweepRun:
    """A run of a sweep.

    Attributes:
      path: Its folder.
      values: The values that it tries, by name.
    """

    path: Path
    values: space.Combination

    def describe(self) -> str:
        """Returns its number, and what it tries."""
        return f"{self.path.name} {describe_values(self.values)}"


@dataclasses.dataclass(frozen=True)
class SweepFolder:
    """The folder of a sweep.

    Attributes:
      path: The folder.
      base: The settings that all runs have.
      runs: In their order.
      others: Runs of an earlier start that this one does not ask for: their folders stay theirs.
      ended: Name of a run's folder to the settings for all runs with which it has ended.
      refused: Names of the folders of runs that this start could not begin.
    """

    path: Path
    base: Mapping[str, Any]
    runs: Sequence[SweepRun]
    others: Sequence[SweepRun] = ()
    ended: dict[str, Any] = dataclasses.field(default_factory=dict)
    refused: set[str] = dataclasses.field(default_factory=set)

    def settings_of(self, run: SweepRun) -> dict[str, Any]:
        """Returns the settings of a run, as a config file holds them."""
        title = run.describe().replace("/", "_").replace("\\", "_")[:100]
        own = {"mode": "train", "run_dir": str(run.path), "run_name": title}
        own |= {"resume": "auto"} if run_directory.holds_run(run.path) else {}
        return space.apply(self.base, run.values) | own

    def is_done(self, run: SweepRun) -> bool:
        """Returns whether an earlier start of the sweep has left nothing to do of a run."""
        status = run_directory.read_summary(run.path).get("status")
        return status in DONE and self.ended.get(run.path.name) == _plain(self.base)

    def note_end(self, run: SweepRun) -> None:
        """Notes that a run has ended with the settings of now."""
        self.ended[run.path.name] = _plain(self.base)
        self.save()

    def save(self) -> None:
        """Writes sweep.json."""
        known = sorted([*self.runs, *self.others], key=lambda run: run.path.name)
        runs = [
            {"folder": name, "values": run.values}
            | ({"ended_with": self.ended[name]} if name in self.ended else {})
            for run in known
            if (name := run.path.name)
        ]
        text = json_text({"settings": self.base, "runs": runs}, indent=2) + "\n"
        write_atomically(self.path / FILE, lambda file: file.write(text))

    def write_table(self, found: Sequence[tuple[SweepRun, Outcome]]) -> Path:
        """Writes sweep.csv: a row a run, with its values and what became of it."""
        path = self.path / "sweep.csv"
        names = list(dict.fromkeys(name for run in self.runs for name in run.values))
        rows: list[list[Any]] = [
            ["run", *names, "status", "metric", "best", "epoch", "num_steps", "train_secs",
             "images_per_sec", "test_accuracy"]
        ]  # fmt: skip
        for run, outcome in found:
            best = outcome.best or ("", "", "")
            secs = outcome.files.summary.get("train_secs")
            more = (outcome.num_steps, secs, outcome.images_per_sec, outcome.test_accuracy)
            values = [show(run.values.get(name, "")) for name in names]
            cells = ["" if cell is None else cell for cell in more]
            rows.append([run.path.name, *values, outcome.status, *best, *cells])
        write_atomically(path, lambda file: csv.writer(file, lineterminator="\n").writerows(rows))
        return path


def open_folder(
    config: JobConfig, base: Mapping[str, Any], combinations: Sequence[space.Combination]
) -> SweepFolder:
    """Creates the folder of a sweep, or continues the sweep in it; sweep.json is not written yet.

    Raises:
      ConfigError: If the folder holds something else, or a sweep that is not to go on.
      DirectoryError: If it cannot be written.
    """
    if config.run_dir is None:
        path = run_directory.make_new(
            "runs", model="sweep", dataset=config.dataset, name=config.run_name
        )
    else:
        path = make_directory(config.run_dir)
    before = _read(path)
    if run_directory.holds_run(path):
        raise ConfigError(f"{path} holds a run, and a sweep has a folder of its own: name another.")
    if before and not config.resume:
        raise ConfigError(
            f"{path} already holds a sweep: pass --resume auto to go on with it, or name another "
            "folder."
        )
    runs = [
        SweepRun(path / str(entry["folder"]), dict(entry["values"]))
        for entry in before.get("runs", ())
    ]
    # Where none has begun, another one may be named: the first may have been a wrong path.
    if before and (base.get("checkpoint") is None or any(run.path.exists() for run in runs)):
        _check_checkpoint(path, before["settings"].get("checkpoint"), base.get("checkpoint"))
    known = [run.values for run in runs]
    for values in combinations:
        if values not in known:
            runs.append(SweepRun(path / f"{len(runs) + 1:03}", values))
    asked = [run for run in runs if run.values in combinations]
    others = [run for run in runs if run.values not in combinations]
    ended = {
        str(entry["folder"]): entry["ended_with"]
        for entry in before.get("runs", ())
        if "ended_with" in entry
    }
    return SweepFolder(path, base, asked, others, ended)


def _check_checkpoint(path: Path, first: str | None, now: str | None) -> None:
    """Raises ConfigError if runs of a sweep are to start from another checkpoint than the rest."""
    if (first and Path(first)) != (now and Path(now)):
        raise ConfigError(
            f"checkpoint={now or 'none'}, but the runs of the sweep in {path} start from "
            f"checkpoint={first or 'none'}, and one table compares all: pass that, or name "
            "another folder."
        )


def read_outcomes(
    folder: SweepFolder, metric: str | None, direction: str | None
) -> list[tuple[SweepRun, Outcome]]:
    """Returns the runs with what became of them; the best first, those without a value last."""
    found = [(run, _outcome_of(folder, run, metric, direction)) for run in folder.runs]
    # Runs are compared by one metric: that of most of them.
    names = [outcome.best.metric for _, outcome in found if outcome.best is not None]
    common = max(names, key=names.count, default=None)
    said = (metrics_of(one.files, metric, direction).get(common or "") for _, one in found)
    word = None if common is None else direction_of(common, next(filter(None, said), None))

    def place(one: tuple[SweepRun, Outcome]) -> tuple[bool, bool, float]:
        best, status = one[1].best, one[1].status
        has_value = best is not None and best.metric == common
        value = best.value if best is not None and has_value else 0.0
        is_bad = status in ("failed", "diverged", "refused", "to do", "not started")
        return is_bad, not has_value, -value if word == "max" else value

    return sorted(found, key=place)


def _outcome_of(
    folder: SweepFolder, run: SweepRun, metric: str | None, direction: str | None
) -> Outcome:
    """Returns what became of a run, without a value if its files are of other settings."""
    found = outcomes.read(run.path, metric, direction)
    if run.path.name in folder.refused:
        return dataclasses.replace(found, status="refused", best=None)
    if found.status in DONE and not folder.is_done(run):
        return dataclasses.replace(found, status="to do", best=None)
    return found


def _plain(settings: Mapping[str, Any]) -> Any:
    """Returns settings as a file gives them back."""
    return json.loads(json_text(settings))


def describe_values(values: space.Combination) -> str:
    """Returns the values of a run as `--set` takes them."""
    return ", ".join(f"{name}={show(value)}" for name, value in values.items())


def show(value: Any) -> str:
    """Returns a value as a person writes it."""
    return value if isinstance(value, str) else json_text(value)


def _read(path: Path) -> dict[str, Any]:
    """Returns what sweep.json says; {} without one.

    Raises:
      ConfigError: If it is damaged.
    """
    try:
        found = json.loads((path / FILE).read_text("utf-8"))
        _ = [(entry["folder"], dict(entry["values"])) for entry in found["runs"]]
        _ = dict(found["settings"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path / FILE} is damaged ({error}): put it back, or name another folder."
        ) from error
    return dict(found)
