"""Figures of matplotlib without pyplot: without global state, and without a display."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gradloop.files import make_directory

from .extras import require_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure, in inches.

    Raises:
      MissingExtra: If matplotlib is not installed.
    """
    require_extra("matplotlib", "plots")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Writes a figure, makes its directory, and returns the path."""
    path = make_directory(Path(path).parent) / Path(path).name
    figure.savefig(path, dpi=120)  # Figure's own canvas is Agg.
    return path
