"""Bar charts of records, as SVG; the same record gives the same bytes.

Drawing needs matplotlib (the extra `plots`). Another version of it may draw other bytes, so a chart
contains a digest of what it shows, and only digests are compared.
"""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

from benchmarks.reporting.races import Record, name_of

_OURS = "#1f6f8b"
_OTHERS = "#b7c4cc"
_STYLE = {
    # Without it, matplotlib gives the parts of the picture random names.
    "svg.hashsalt": "gradloop",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
}


class NoMatplotlib(ImportError):
    """A chart cannot be drawn without matplotlib."""


def bars(record: Record) -> list[dict[str, Any]]:
    """Returns the name, status, median and quartiles of each arm; None where it has no speed."""
    return [
        {"name": name, "status": arm["status"].replace("_", " "), **_speed(arm)}
        for name, arm in record["arms"].items()
    ]


def _speed(arm: Any) -> dict[str, float | None]:
    names = ("median", "quartile_1", "quartile_3")
    if arm["status"] != "ok":
        return dict.fromkeys(names)
    return {name: arm["images_per_sec"][name] for name in names}


def digest(record: Record) -> str:
    """Returns a digest of what the chart of a record shows."""
    shown = json.dumps([_title(record), bars(record)], sort_keys=True)
    return f"gradloop {hashlib.sha256(shown.encode()).hexdigest()}"


def draw(record: Record) -> str:
    """Returns the chart of a record, as SVG.

    Raises:
      NoMatplotlib: If it is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NoMatplotlib(f"{error}: run `pip install gradloop[plots]`") from error

    shown = bars(record)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.0, 0.9 + 0.36 * len(shown)), layout="constrained")
        axes = figure.add_subplot()
        _draw_bars(axes, shown)
        axes.set_title(_title(record), loc="left", fontweight="bold", fontsize=10)
        text = io.StringIO()
        metadata = {"Date": None, "Creator": None, "Description": digest(record)}
        figure.savefig(text, format="svg", metadata=metadata)
    # Spaces at the ends of lines are not part of the picture.
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _title(record: Record) -> str:
    return f"{name_of(record)}: images/s, medians and quartiles, {record['hardware']}"


def _draw_bars(axes: Any, shown: list[dict[str, Any]]) -> None:
    end = max([bar["quartile_3"] for bar in shown if bar["median"]], default=1.0)
    for position, bar in enumerate(shown):
        if bar["median"] is None:
            axes.text(0.01 * end, position, bar["status"], va="center", color="gray", fontsize=9)
            continue
        median, low, high = bar["median"], bar["quartile_1"], bar["quartile_3"]
        color = _OURS if bar["name"].startswith("engine") else _OTHERS
        error = [[median - low], [high - median]]
        axes.barh(position, median, xerr=error, color=color, ecolor="#333333", capsize=3)
        axes.text(high + 0.015 * end, position, f"{median:,.0f}", va="center", fontsize=9)
    axes.set_yticks(range(len(shown)), [bar["name"] for bar in shown], fontsize=9)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 1.15 * end)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
