"""The picture of a profile: which operations take the time, and what runs where."""

from __future__ import annotations

import os
from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..storage import figures
from .intervals import clip, innermost
from .xplane import Event, Line, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = {"compute": "#1f6f8b", "input": "#e07a1f", "reduce": "#7a4fa3"}
_MAX_BARS = 12
_NUM_STEPS = 3


def plot_profile(trace: Trace, summary: dict[str, Any], path: str | os.PathLike[str]) -> Path:
    """Draws the types of operation that take the most time, and the threads in the last steps.

    Args:
      trace: With step markers.
      summary: What `summarize` returns for the trace.
      path: File to write, a PNG.

    Returns:
      The path.

    Raises:
      MissingExtra: If matplotlib is not installed.
    """
    names = [thread["name"] for thread in summary["threads"] if thread["busy_secs"]]
    lines = [line for line in trace.lines if line.name in names and line.name != trace.marker_line]
    figure = figures.new_figure(11.0, 5.0 + 0.28 * len(lines))
    upper, lower = figure.subplots(2, 1, height_ratios=[3.6, 0.8 + 0.28 * len(lines)])
    rows = summary["types"][:_MAX_BARS]
    _draw_types(upper, rows, summary["num_steps"])
    operations = summary["operations"]
    reduces = {(r["name"], r["type"]) for r in operations if r["category"] == "reduce"}
    drawn = _draw_threads(lower, trace, lines, reduces) | {row["category"] for row in rows}
    _add_keys(figure, [name for name in _COLORS if name in drawn])
    figure.suptitle(_title(summary), x=0.01, ha="left", fontsize=12)
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", labelsize=8)
    return figures.save_figure(figure, path)


def _title(summary: dict[str, Any]) -> str:
    first, last, devices = summary["first_step"], summary["last_step"], summary["devices"]
    steps = f"step {first}" if first == last else f"steps {first} to {last}"
    named = devices[0] if len(devices) == 1 else f"{len(devices)} devices"
    return f"Profile of {steps} on {named}: {1e3 * summary['step_secs']:.3g} ms a step"


def _add_keys(figure: Figure, names: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=_COLORS[name], label=name) for name in names]
    figure.legend(handles=handles, loc="upper right", ncols=len(handles), frameon=False)


def _draw_types(axes: Axes, rows: Sequence[dict[str, Any]], num_steps: int) -> None:
    for name, color in _COLORS.items():
        chosen = [(i, row) for i, row in enumerate(rows) if row["category"] == name]
        if not chosen:
            continue
        msecs = [1e3 * row["secs"] / num_steps for _, row in chosen]
        bars = axes.barh([i for i, _ in chosen], msecs, color=color, label=name)
        axes.bar_label(bars, [f" {row['share']:.0%}" for _, row in chosen], fontsize=8)
    axes.set_yticks(range(len(rows)), [row["type"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds a step, on all threads or streams")
    axes.set_title("types of operation", loc="left", fontweight="bold")


def _draw_threads(
    axes: Axes, trace: Trace, lines: Sequence[Line], reduces: Set[tuple[str, str]]
) -> set[str]:
    """Draws a row per thread, over the last steps; the calls are shaded.

    Returns:
      The categories of what was drawn.
    """
    drawn: set[str] = set()
    steps = sorted(trace.steps)[-_NUM_STEPS:]
    calls = [trace.steps[step] for step in steps]
    window = calls[0][0], trace.window[1]

    def draw(row: int, events: Sequence[Event], color: str) -> None:
        parts = clip([event.interval for event in events], window)
        bars = [(1e-9 * (start - window[0]), 1e-9 * (end - start)) for start, end in parts]
        axes.broken_barh(bars, (row - 0.4, 0.8), color=color, linewidth=0)

    for row, line in enumerate(lines):
        draw(row, [e for e in line.events if e.kind == "region"], "0.8")
        stages = innermost(e for e in line.events if e.kind == "stage")
        working = [e for e in stages if not e.is_waiting]
        draw(row, working, _COLORS["input"])
        drawn |= {"input"} if working else set()
        by_category: dict[str, list[Event]] = {name: [] for name in _COLORS}
        for event in line.events:
            if event.kind == "op":
                is_reduce = (event.name, event.type) in reduces
                category = "reduce" if is_reduce else "input" if event.is_input else "compute"
                by_category[category].append(event)
        for name, events in by_category.items():
            draw(row, events, _COLORS[name])
            drawn |= {name} if events else set()
    for step, (start, end) in zip(steps, calls, strict=True):
        axes.axvspan(1e-9 * (start - window[0]), 1e-9 * (end - window[0]), color="0.5", alpha=0.1)
        axes.text(1e-9 * (start - window[0]), len(lines) - 0.45, f"step {step}", fontsize=8)
    axes.set_yticks(range(len(lines)), [line.name for line in lines])
    axes.set_ylim(-0.6, len(lines) - 0.1)
    axes.set_xlabel("milliseconds; gray: the thread works, but not on an operation of its own")
    axes.set_title("threads", loc="left", fontweight="bold", pad=12)
    return drawn
