"""What a sweep has found: a metric over each setting."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradloop.engine.storage import figures

from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_COLUMNS = 3
_LOG_RATIO = 20.0


def plot_sweep(
    points: Sequence[tuple[Mapping[str, Any], float]], metric: str, path: str | os.PathLike[str]
) -> Path:
    """Draws a panel a setting, with a point a run; the first run, the best one, is marked.

    Args:
      points: Of each run the values that it tried, and that of the metric; the best run first.
      metric: Its name.
      path: The picture's.

    Returns:
      The picture's path.

    Raises:
      MissingExtra: If matplotlib is not installed.
    """
    names = list(dict.fromkeys(name for values, _ in points for name in values))
    names = [name for name in names if len({str(v.get(name)) for v, _ in points}) > 1] or names
    num_columns = min(len(names), _MAX_COLUMNS)
    num_rows = -(-len(names) // num_columns)
    figure = figures.new_figure(4.2 * num_columns + 0.4, 3.4 * num_rows + 0.6)
    for index, name in enumerate(names):
        axes = figure.add_subplot(num_rows, num_columns, index + 1)
        _draw_panel(axes, [values.get(name) for values, _ in points], [v for _, v in points])
        axes.set_xlabel(style.plain(name))
        axes.set_ylabel(style.plain(metric.replace("_", " ")))
    style.set_title(figure, f"{metric.replace('_', ' ')} of {len(points)} runs, best epoch each")
    return figures.save_figure(figure, path)


def _draw_panel(axes: Axes, values: Sequence[Any], heights: Sequence[float]) -> None:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(values):
        places = [float(number) for number in numbers]
        if min(places) > 0 and max(places) / min(places) > _LOG_RATIO:
            axes.set_xscale("log")
    else:
        words = list(dict.fromkeys(str(value) for value in values))
        places = [float(words.index(str(value))) for value in values]
        labels = [style.plain(style.shorten(word, 16)) for word in words]
        axes.set_xticks(range(len(words)), labels)
        axes.set_xlim(-0.5, len(words) - 0.5)
    axes.scatter(places[1:], heights[1:], s=36, color=style.COLORS[0], alpha=0.8)
    axes.scatter(places[:1], heights[:1], s=90, marker="*", color=style.COLORS[1], label="best run")
    style.finish_panel(axes, "", heights)
