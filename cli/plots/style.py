"""What pictures have in common: colours, panels, words that fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = (
    "#1f6f8b", "#e07a1f", "#7a4fa3", "#2e7d4f", "#b3304f", "#8c7a00", "#3f5bb5", "#6b6b6b",
)  # fmt: skip
TRAINING, VALIDATION, RATE = COLORS[:3]
# A loss that falls that far is a line along the axis otherwise.
_LOG_RATIO = 50.0
_MAX_TITLE = 90


def finish_panel(axes: Axes, title: str, values: Sequence[float], *, has_keys: bool = True) -> None:
    """Adds to a panel of curves what all have; the axis is logarithmic if the values need it."""
    axes.set_title(title.replace("_", " "), loc="left", fontweight="bold", fontsize=11)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if needs_log(values):
        _use_log(axes, [value for value in values if math.isfinite(value)])
    if has_keys:
        axes.legend(frameon=False, fontsize=9)


def _use_log(axes: Axes, values: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    is_wide = max(values) / min(values) > 1e3
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if is_wide else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def needs_log(values: Sequence[float]) -> bool:
    """Returns whether values span so much that a linear axis hides most of them.

    Example:
      >>> needs_log([10.0, 0.01]), needs_log([1.0, 0.5]), needs_log([100.0, 0.0])
      (True, False, False)
    """
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) / min(finite) > _LOG_RATIO


def use_whole_numbers(axes: Axes) -> None:
    """Gives the horizontal axis whole numbers, with commas between thousands."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def set_title(figure: Figure, text: str) -> None:
    """Sets the title of a whole picture."""
    figure.suptitle(plain(shorten(text, _MAX_TITLE)), fontsize=12)


def shorten(text: str, limit: int) -> str:
    """Returns a text that is not longer than the limit: what is left out is in the middle.

    Example:
      >>> shorten("hammerhead shark 12", 12)
      'hammer... 12'
    """
    if len(text) <= limit:
        return text
    num_last = (limit - 3) // 3
    return f"{text[: limit - 3 - num_last]}...{text[len(text) - num_last :]}"


def plain(text: str) -> str:
    """Returns a text that matplotlib shows as it is: a dollar sign begins no formula.

    Characters that no font has stay as they are, and matplotlib draws a box.
    """
    return "".join(c if c.isprintable() else "?" for c in text).replace("$", r"\$")
