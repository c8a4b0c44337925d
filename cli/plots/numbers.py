"""What was predicted over what is true, where numbers are predicted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gradloop.engine.storage import figures

from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_PANELS = 4
_MAX_DOTS = 2000


def plot_numbers(
    targets: np.ndarray,
    predictions: np.ndarray,
    path: str | os.PathLike[str],
    *,
    names: Sequence[str] | None = None,
) -> Path:
    """Draws the predicted numbers over the true ones, a panel for each of the first four outputs.

    Args:
      targets: Shape `[n]` or `[n, outputs]`.
      predictions: The same shape, or with a last axis of 1 more or less.
      path: The picture's.
      names: Of the outputs.

    Returns:
      The picture's path.

    Raises:
      MissingExtra: If matplotlib is not installed.
      ValueError: If the shapes differ.
    """
    targets, predictions = _as_table(targets), _as_table(predictions)
    if targets.shape != predictions.shape:
        raise ValueError(
            f"targets and predictions must have the same shape, not {targets.shape} and "
            f"{predictions.shape}."
        )
    num_panels = min(targets.shape[1], _MAX_PANELS)
    figure = figures.new_figure(4.4 * num_panels + 0.6, 4.6)
    for index in range(num_panels):
        axes = figure.add_subplot(1, num_panels, index + 1)
        _draw(axes, targets[:, index], predictions[:, index])
        if names is not None or targets.shape[1] > 1:
            name = names[index] if names is not None else f"output {index}"
            axes.text(0.0, 1.02, style.plain(name), transform=axes.transAxes, fontweight="bold")
    style.set_title(figure, f"{len(targets):,} examples")
    return figures.save_figure(figure, path)


def _as_table(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    return values.reshape(len(values), -1)


def _draw(axes: Axes, targets: np.ndarray, predictions: np.ndarray) -> None:
    is_finite = np.isfinite(targets) & np.isfinite(predictions)
    targets, predictions = targets[is_finite], predictions[is_finite]
    both = np.concatenate([targets, predictions])
    ends = [both.min(), both.max()] if len(both) else [0.0, 1.0]
    axes.plot(ends, ends, color="0.5", linewidth=1, label="equal")
    if len(targets) > _MAX_DOTS:
        axes.hexbin(targets, predictions, gridsize=50, bins="log", mincnt=1, cmap="Blues")
    else:
        axes.plot(targets, predictions, "o", ms=4, alpha=0.5, color=style.TRAINING, mew=0)
    error = np.abs(targets - predictions).mean() if len(targets) else np.nan
    spread = np.square(targets - targets.mean()).sum() if len(targets) else 0.0
    explained = 1 - np.square(targets - predictions).sum() / spread if spread else np.nan
    text = f"mean absolute error {error:.4g}\nR² {explained:.4g}"
    axes.text(0.03, 0.97, text, transform=axes.transAxes, va="top", fontsize=9)
    axes.set(xlabel="true", ylabel="predicted")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
