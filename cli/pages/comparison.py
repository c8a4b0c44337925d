"""Runs side by side: the settings that differ, what they reached, and how fast."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gradloop.files import write_atomically

from .. import plots
from . import charts, run_files, sections
from .curves import best_epoch, learning_rate_points, metric_names
from .markup import Markup, document, table, tag
from .run_files import LEARNING_RATE, RunFiles, number, part
from .words import show_bytes, show_number, show_secs, show_value

NAME = "compare"
# Settings of one call, or of where its files are: no reason for runs to differ.
_NOT_COMPARED = {
    "run_dir",
    "run_name",
    "tags",
    "resume",
    "mode",
    "num_workers",
    "quiet",
}
_MAX_CELL = 40


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Several runs.

    Attributes:
      runs: What was read of each.
      names: What they are called, each another.
    """

    runs: Sequence[RunFiles]
    names: Sequence[str]

    @property
    def settings(self) -> dict[str, list[str]]:
        """Settings that differ, with the value of each run."""
        keys = dict.fromkeys(key for run in self.runs for key in run.config)
        values = {key: [_setting(run, key) for run in self.runs] for key in keys}
        return {k: v for k, v in values.items() if len(set(v)) > 1 and k not in _NOT_COMPARED}

    @property
    def results(self) -> dict[str, list[str]]:
        """What the runs reached, and how fast; rows that say something of one run at least."""
        rows = {name: [show(run) for run in self.runs] for name, show in _RESULTS.items()}
        for name in dict.fromkeys(n for run in self.runs for n in part(run.summary, "test_logs")):
            values = [number(part(run.summary, "test_logs").get(name)) for run in self.runs]
            rows[f"test {name}"] = [show_number(value) for value in values]
        return {name: row for name, row in rows.items() if set(row) != {"-"}}

    def to_text(self) -> str:
        """Returns both tables as text."""
        paths = {"folder": [str(run.path) for run in self.runs]}
        settings = self.settings or {"": ["all settings are the same"]}
        blocks = [("", paths), ("settings that differ", settings), ("results", self.results)]
        return "\n\n".join(_text_table(title, self.names, rows) for title, rows in blocks)

    def curves(self, metric: str) -> tuple[str, list[plots.Curve]]:
        """Returns what a metric is drawn over, and its curves: training is dashed."""
        x_label = "epoch" if all(len(run.epochs) > 1 for run in self.runs) else "step"
        found = []
        for index, (run, name) in enumerate(zip(self.runs, self.names, strict=True)):
            keys = [(f"val_{metric}", name, False)]
            if metric == LEARNING_RATE:
                keys = [(metric, name, False)]
            else:
                keys.insert(0, (metric, f"{name} training", True))
            for key, label, is_dashed in keys:
                points = _points(run, key, x_label)
                if points:
                    found.append(plots.Curve(label, points, index, is_dashed))
        return x_label, found

    @property
    def metrics(self) -> list[str]:
        """What has a curve in one of the runs, the loss first."""
        names = dict.fromkeys(n for run in self.runs for n in metric_names(run))
        found = sorted(names, key=lambda name: name != "loss")
        rates = {v for run in self.runs for _, v in learning_rate_points(run)}
        return [*found, LEARNING_RATE] if len(rates) > 1 else found

    def write_page(self, directory: Path) -> Path:
        """Writes compare.html, and returns its path."""
        path = directory / f"{NAME}.html"
        content = self._page().encode("utf-8", errors="replace")
        write_atomically(path, lambda file: file.write(content), mode="wb")
        return path

    def draw(self, directory: Path) -> Path:
        """Draws the curves of all runs, and returns the picture's path.

        Raises:
          MissingExtra: If matplotlib is not installed.
        """
        panels = {name.replace("_", " "): self.curves(name) for name in self.metrics}
        return plots.plot_runs(panels, directory / f"{NAME}.png")

    def _page(self) -> Markup:
        title = f"{len(self.runs)} runs side by side"
        header = ["", *self.names]
        settings: Markup = tag("p", "All settings are the same.")
        if self.settings:
            settings = table(header, _rows(self.settings), caption="Settings that differ")
        keys = [
            tag("li", tag("span", name, class_=f"key s{index}"), " ", tag("code", str(run.path)))
            for index, (name, run) in enumerate(zip(self.names, self.runs, strict=True))
        ]
        figures = [self._chart(name) for name in self.metrics]
        drawn = tag("div", *figures, class_="charts") if figures else tag("p", "Not there.")
        return document(
            title,
            tag("header", tag("h1", title), tag("ul", *keys, class_="runs")),
            sections.section("Curves", drawn),
            sections.section("Settings that differ", settings),
            sections.section("Results", table(header, _rows(self.results), caption="Results")),
            tag("footer", "Written by gradloop from the files of the runs."),
        )

    def _chart(self, metric: str) -> Markup:
        x_label, found = self.curves(metric)
        series = [
            charts.Series(c.label, c.points, f"s{c.color}{' dashed' * c.is_dashed}") for c in found
        ]
        return charts.line_chart(metric.replace("_", " "), series, x_label=x_label)


def compare(folders: Sequence[str | Path]) -> Comparison:
    """Reads the folders of several runs. Their names are those of the folders, or of the runs."""
    runs = [run_files.read(folder) for folder in folders]
    names: list[str] = []
    for run in runs:
        candidates = itertools.chain([run.name], (f"{run.name} ({n})" for n in itertools.count(2)))
        names.append(next(name for name in candidates if name not in names))
    return Comparison(runs, names)


def _setting(run: RunFiles, key: str) -> str:
    return show_value(run.config[key]) if key in run.config else "-"


def _points(run: RunFiles, key: str, x_label: str) -> list[charts.Point]:
    if x_label == "epoch":
        return [(r["epoch"] + 1, r[key]) for r in run.epochs if key in r]
    records = sorted([*run.steps, *run.epochs], key=lambda record: record["step"])
    return [(r["step"], r[key]) for r in records if key in r]


def _best(run: RunFiles) -> str:
    best = best_epoch(run)
    return f"{best[1]} {show_number(best[2])} in epoch {best[0]}" if best else "-"


def _of_summary(key: str, show: Callable[[float | None], str]) -> Callable[[RunFiles], str]:
    return lambda run: show(number(run.summary.get(key)))


def _speed(run: RunFiles) -> str:
    keys = ("steady_images_per_sec", "images_per_sec")
    return show_number(next((v for k in keys if (v := number(run.summary.get(k)))), None))


def _largest_part(run: RunFiles) -> str:
    parts = part(part(run.summary, "timing"), "parts")
    shares = {n: number(v.get("share")) or 0 for n, v in parts.items() if isinstance(v, dict)}
    name = max(shares, key=lambda key: shares[key], default=None)
    return "-" if name is None else f"{shares[name]:.0%} {name}"


_RESULTS: dict[str, Callable[[RunFiles], str]] = {
    "status": lambda run: str(run.summary.get("status") or "not ended"),
    "best": _best,
    "epochs": lambda run: show_number(len(run.epochs) or None),
    "steps": _of_summary("num_steps", show_number),
    "learning rate at the end": _of_summary("learning_rate", show_number),
    "training": _of_summary("train_secs", show_secs),
    "examples a second": _speed,
    "most time": _largest_part,
    "peak memory": _of_summary("peak_memory_bytes", show_bytes),
    "weights": lambda run: str(run.summary.get("weights_sha256") or "-")[:8],
}


def _rows(rows: dict[str, list[str]]) -> list[list[str]]:
    return [[name, *values] for name, values in rows.items()]


def _text_table(title: str, names: Sequence[str], rows: dict[str, list[str]]) -> str:
    lines = [[title, *names], *_rows(rows)]
    cells = [[_printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in itertools.zip_longest(*cells, fillvalue="")]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip()
        for line in cells
    )


def _printable(cell: Any) -> str:
    """Returns a cell for a terminal: nothing in it moves the cursor, or is too long."""
    text = "".join(c if c.isprintable() else "?" for c in str(cell))
    return text if len(text) <= _MAX_CELL else f"{text[: _MAX_CELL - 3]}..."
