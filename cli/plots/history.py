"""The curves of a training."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gradloop.engine.storage import figures
from gradloop.engine.storage.records import RECORD_KEYS, Record, epoch_records

from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_PANELS = 4
_MAX_MARKED = 60
_RATE = "learning_rate"
_NO_CURVES = {*RECORD_KEYS, "time", _RATE}


def plot_history(
    records: Sequence[Record],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    best_epoch: int | None = None,
) -> Path:
    """Draws one panel per metric, the loss first, with training and validation curves.

    A run of one epoch is drawn over its steps, if they are recorded: one point makes no curve. The
    learning rate has a panel if it changes. A value that is not finite is a gap.

    Args:
      records: As in `MemoryWriter.records` or from `engine.storage.writers.read_csv`.
      path: The picture's; its extension names the format.
      title: Of the picture, such as the model and the run.
      best_epoch: Number, from 0, of the epoch to mark.

    Returns:
      The picture's path.

    Raises:
      MissingExtra: If matplotlib is not installed.
      ValueError: If no epoch is recorded, or the directory cannot be written.
    """
    epochs = epoch_records(records)
    names = _find_metrics(epochs)
    # A resumed run may repeat a step: the later record counts.
    by_step = {r["step"]: r for r in records if r["kind"] == "execution"}
    steps = [by_step[step] for step in sorted(by_step)]
    rates = {
        r["step"]: float(r[_RATE]) for r in [*steps, *epochs] if np.ndim(r.get(_RATE, [])) == 0
    }
    num_panels = len(names) + (len(set(rates.values())) > 1)
    figure = figures.new_figure(max(5.0, 4.4 * num_panels), 3.9 if title else 3.6)
    for index, name in enumerate(names):
        axes = figure.add_subplot(1, num_panels, index + 1)
        if len(epochs) == 1 and steps:
            _draw_steps(axes, name, steps, epochs[0])
        else:
            _draw_epochs(axes, name, epochs, best_epoch)
    if num_panels > len(names):
        _draw_rate(figure.add_subplot(1, num_panels, num_panels), rates)
    if title:
        style.set_title(figure, title)
    return figures.save_figure(figure, path)


def _find_metrics(epochs: Sequence[Record]) -> list[str]:
    """Returns the metrics that get a panel, the loss first."""
    names = dict.fromkeys(name for record in epochs for name in record if _is_curve(name))
    found = [name for name in names if all(np.ndim(r.get(name, 0)) == 0 for r in epochs)]
    if not found:
        raise ValueError(
            "there is no epoch in the records: train for one epoch or more before plotting."
        )
    # Stable sort: the loss, then the order of the logs.
    return sorted(found, key=lambda name: name != "loss")[:_MAX_PANELS]


def _is_curve(name: str) -> bool:
    return name not in _NO_CURVES and not name.startswith("val_")


def _draw_epochs(axes: Axes, name: str, epochs: Sequence[Record], best: int | None) -> None:
    values = []
    for key, mark, color, label in (
        (name, "o", style.TRAINING, "training"),
        (f"val_{name}", "s", style.VALIDATION, "validation"),
    ):
        points = [(record["epoch"] + 1, record[key]) for record in epochs if key in record]
        if points:
            marker = mark if len(points) <= _MAX_MARKED else ""
            axes.plot(*zip(*points, strict=True), f"{marker}-", ms=4, color=color, label=label)
            values += [value for _, value in points]
    if best is not None:
        axes.axvline(best + 1, color="0.45", linestyle=":", label=f"best: epoch {best + 1}")
    axes.set_xlabel("epoch")
    around = 0.5 if len(epochs) == 1 else 0.04 * len(epochs)
    axes.set_xlim(epochs[0]["epoch"] + 1 - around, epochs[-1]["epoch"] + 1 + around)
    style.use_whole_numbers(axes)
    _say_what_is_missing(axes, values)
    style.finish_panel(axes, name, values)


def _draw_steps(axes: Axes, name: str, steps: Sequence[Record], epoch: Record) -> None:
    points = [(r["step"], r[name]) for r in [*steps, epoch] if name in r]
    end = epoch["step"]
    axes.plot(*zip(*points, strict=True), color=style.TRAINING, label="training, mean so far")
    axes.plot([end], [points[-1][1]], "o", ms=5, color=style.TRAINING)
    values = [value for _, value in points]
    if f"val_{name}" in epoch:
        value = epoch[f"val_{name}"]
        label = f"validation: {value:.4g}"
        axes.plot([end], [value], "s", ms=6, color=style.VALIDATION, label=label)
        values.append(value)
    axes.set_xlabel("step")
    style.use_whole_numbers(axes)
    _say_what_is_missing(axes, values)
    style.finish_panel(axes, name, values)


def _draw_rate(axes: Axes, rates: dict[int, float]) -> None:
    axes.plot(*zip(*sorted(rates.items()), strict=True), color=style.RATE)
    axes.set_xlabel("step")
    style.use_whole_numbers(axes)
    style.finish_panel(axes, "learning rate", list(rates.values()), has_keys=False)


def _say_what_is_missing(axes: Axes, values: Sequence[float]) -> None:
    num_missing = sum(not math.isfinite(value) for value in values)
    if not num_missing:
        return
    text = f"{num_missing} of {len(values)} values are not finite"
    axes.set_title(text, loc="right", fontsize=9, color="0.35")
    if num_missing == len(values):
        axes.set_yticks([])
