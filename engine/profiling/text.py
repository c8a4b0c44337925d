"""A profile's summary in words: a few lines for the log, and the whole text."""

from __future__ import annotations

from typing import Any

_MAX_ROWS = 12
_MAX_NAME = 60
_WALL_LABELS = {
    "operations": "an operation runs",
    "call_starts": "start of a call, up to its first operation",
    "gaps_in_calls": "in a call, between operations",
    "between_calls": "between calls (hooks, loop)",
}
_SHARE = ["ms a step", "share"]
_COLUMNS = [*_SHARE, "times a step", "what", "type"]


def format_short(summary: dict[str, Any]) -> str:
    """Returns the lines for the log."""
    step, window, wall = summary["step_secs"], summary["window_secs"], summary["wall"]
    top = ", ".join(f"{row['type']} {row['share']:.0%}" for row in summary["types"][:4])
    lines = {
        "profile": f"steps {summary['first_step']} to {summary['last_step']}, "
        f"{1e3 * step:.3f} ms a step (median)",
        "wall": f"{wall['operations']['share']:.0%} an operation runs, "
        f"{wall['call_starts']['share']:.0%} a call starts, "
        f"{wall['gaps_in_calls']['share']:.0%} gaps between operations, "
        f"{wall['between_calls']['share']:.0%} between calls",
        "top": top,
        "input": f"next() {summary['input']['next_secs'] / window:.0%} of the wall time",
    }
    if summary["reduce"]["count"]:
        lines["reduce"] = f"{summary['reduce']['wall_secs'] / window:.0%} of the wall time"
    return "\n".join(f"  {name:<10} {text}" for name, text in lines.items())


def format_text(summary: dict[str, Any]) -> str:
    """Returns the whole text: parts of the wall time, input, operations, threads, gaps."""
    num_steps = summary["num_steps"]
    wall = [[*_cells(row, num_steps), _WALL_LABELS[name]] for name, row in summary["wall"].items()]
    parts = [
        _head(summary),
        _table("Wall time", [*_SHARE, ""], wall),
        "Input and reduce\n" + "\n".join(_input_and_reduce(summary)),
        *_operations(summary),
        _threads(summary),
        _gaps(summary),
    ]
    return "\n\n".join(parts) + "\n"


def _head(summary: dict[str, Any]) -> str:
    return (
        f"Steps {summary['first_step']} to {summary['last_step']} on "
        f"{', '.join(summary['devices'])}: {_msecs(summary['window_secs'])} ms, "
        f"{_msecs(summary['step_secs'])} ms a step (median), "
        f"{_msecs(summary['call_secs'])} ms of them in the call.\n"
        "Profiling makes each step slower: compare shares, not speeds."
    )


def _input_and_reduce(summary: dict[str, Any]) -> list[str]:
    num_steps, found, reduce = summary["num_steps"], summary["input"], summary["reduce"]

    def wall(secs: float) -> str:
        share = secs / summary["window_secs"]
        return f"{_msecs(secs, num_steps)} ms a step, {share:.1%} of the wall time"

    work = _msecs(found["work_secs"], num_steps)
    lines = [f"  next(): {wall(found['next_secs'])}; work on all threads: {work} ms a step"]
    if found["made_in_graph"]:
        lines.append(
            "  The step's own graph makes the batches. A call of one step also makes a batch that "
            "nothing uses:\n  without the profiler, expect about half of this."
        )
    count = reduce["count"] / num_steps
    lines.append(
        f"  reduce: {wall(reduce['wall_secs'])}, waiting included; {count:.4g} a step"
        if count
        else "  reduce: none"
    )
    return lines


def _operations(summary: dict[str, Any]) -> tuple[str, str]:
    num_steps = summary["num_steps"]
    types = [
        [*_cells(row, num_steps), row["category"], row["type"]]
        for row in summary["types"][:_MAX_ROWS]
    ]
    operations = [
        [*_cells(row, num_steps), row["category"], row["type"], _shorten(row["name"])]
        for row in summary["operations"][:_MAX_ROWS]
    ]
    return (
        _table("Types of operation (their own time)", _COLUMNS, types),
        _table("Operations (their own time)", [*_COLUMNS, "operation"], operations),
    )


def _threads(summary: dict[str, Any]) -> str:
    num_steps = summary["num_steps"]
    rows = [
        [_msecs(row["operations_secs"], num_steps), _msecs(row["busy_secs"], num_steps),
         f"{row['idle_share']:.1%}", row["name"]]
        for row in summary["threads"]
        if row["busy_secs"]
    ]  # fmt: skip
    return _table("Threads", ["ops, ms a step", "busy, ms a step", "idle", "thread"], rows)


def _gaps(summary: dict[str, Any]) -> str:
    rows = [
        [_msecs(gap["secs"]), str(gap["step"]), _msecs(gap["after_secs"]), ""]
        for gap in summary["gaps"]
    ]
    return _table(
        "Longest gaps: no operation runs on any thread",
        ["ms", "in step", "ms after its start", ""],
        rows,
    )


def _cells(row: dict[str, Any], num_steps: int) -> list[str]:
    cells = [_msecs(row["secs"], num_steps), f"{row['share']:.1%}"]
    return cells + ([f"{row['count'] / num_steps:.4g}"] if "count" in row else [])


def _msecs(secs: float, num_steps: int = 1) -> str:
    return f"{1e3 * secs / num_steps:.3f}"


def _shorten(name: str) -> str:
    # The end says more than the beginning: layer and operation.
    return name if len(name) <= _MAX_NAME else "..." + name[-(_MAX_NAME - 3) :]


def _table(title: str, header: list[str], rows: list[list[str]]) -> str:
    """Lays out columns: numbers to the right, and the last one, a name, to the left."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join([*(c.rjust(w) for c, w in zip(row[:-1], widths, strict=False)), row[-1]])
        for row in (header, *rows)
    ]
    return title + "\n" + "\n".join(f"  {line}".rstrip() for line in lines)
