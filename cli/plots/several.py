"""The curves of several runs in one picture."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gradloop.engine.storage import figures

from . import style

_MAX_COLUMNS = 3


class Curve(NamedTuple):
    """A curve of a run: its name, its points, the number of its colour, and how it is drawn."""

    label: str
    points: Sequence[tuple[float, float]]
    color: int
    is_dashed: bool = False


def plot_runs(
    panels: Mapping[str, tuple[str, Sequence[Curve]]], path: str | os.PathLike[str]
) -> Path:
    """Draws a panel a metric, in which a run has one colour; training is dashed.

    Args:
      panels: Metric to the name of its horizontal axis, and its curves.
      path: The picture's.

    Returns:
      The picture's path.

    Raises:
      MissingExtra: If matplotlib is not installed.
    """
    num_columns = min(len(panels), _MAX_COLUMNS) or 1
    num_rows = -(-len(panels) // num_columns) or 1
    figure = figures.new_figure(max(5.0, 4.6 * num_columns), 3.6 * num_rows + 0.8)
    labels: dict[str, Any] = {}
    for index, (title, (x_label, curves)) in enumerate(panels.items()):
        axes = figure.add_subplot(num_rows, num_columns, index + 1)
        for curve in curves:
            (line,) = axes.plot(
                *zip(*curve.points, strict=True), linestyle="--" if curve.is_dashed else "-",
                color=style.COLORS[curve.color], linewidth=1.2 if curve.is_dashed else 2.0,
            )  # fmt: skip
            labels.setdefault(style.plain(style.shorten(curve.label, 40)), line)
        axes.set_xlabel(x_label)
        style.use_whole_numbers(axes)
        values = [value for curve in curves for _, value in curve.points]
        style.finish_panel(axes, style.plain(title), values, has_keys=False)
    figure.legend(
        list(labels.values()), list(labels), loc="outside lower center", frameon=False,
        ncols=min(len(labels) or 1, 2 * num_columns), fontsize=9,
    )  # fmt: skip
    return figures.save_figure(figure, path)
