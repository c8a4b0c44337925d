"""What a person sees of a race: the progress, and a table at the end."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.race import stopping
from benchmarks.reporting import stats

_ENDS = {
    stopping.INTERVALS: "narrow intervals",
    stopping.TIME: "the limit of time",
    stopping.ROUNDS: "the limit of rounds",
}
_OFTEN = ("round", "weights", "without dropout")
_TOO_WIDE = f"too wide: no verdict above {stats.MAX_WIDTH:.0%}".replace("%", " %")
_HEADER = ("arm", "images/s", "quartiles", "us/step", "roof", "start", "97 %", "99 %", "peak MiB")


def show_progress(line: str) -> None:
    """Shows a line; on a terminal, lines about what arms do replace one another."""
    if sys.stderr.isatty():
        end = "" if line.startswith(("set up", *_OFTEN)) else "\n"
        print(f"\r\033[K{line}", end=end, file=sys.stderr, flush=True)
    elif not line.startswith(_OFTEN):
        print(line, file=sys.stderr, flush=True)


def show_record(record: Mapping[str, Any]) -> None:
    """Prints a record as `to_text` has it."""
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    print(to_text(record))


def to_text(record: Mapping[str, Any]) -> str:
    """Returns a record as text: a table, the arms without a speed, the ratios of the engine."""
    arms = record["arms"]
    task = record["task"]
    lines = [
        f"{record['workload']} on {record['hardware']}, {task['precision']}: medians of "
        f"{record['num_repeats']} rounds of {record['steps_per_repeat']} steps, "
        f"ended by {_ENDS[record['stopped_by']]}",
        *align([_HEADER, *(_row(name, arm) for name, arm in arms.items())]),
    ]
    lines += [
        f"{name}: {arm['status'].replace('_', ' ')}: {arm['reason']}"
        for name, arm in arms.items()
        if arm["status"] != "ok"
    ]
    return "\n".join([*lines, "", *_ratio_lines(record), ""])


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns lines with the first column aligned left and the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _row(name: str, arm: Mapping[str, Any]) -> list[str]:
    if arm["status"] != "ok":
        return [name, arm["status"].replace("_", " "), *[""] * (len(_HEADER) - 2)]
    speed = arm["images_per_sec"]
    share = arm["share_of_roof"]
    secs = arm["secs_to_accuracy"]
    return [
        name,
        f"{speed['median']:,.0f}",
        f"{speed['quartile_1']:,.0f} to {speed['quartile_3']:,.0f}",
        f"{arm['usecs_per_step']['median']:,.0f}",
        "-" if share is None else f"{share:.1%}",
        *(_secs(value) for value in (arm["startup_secs"], *secs.values())),
        f"{arm['peak_memory_bytes'] / 2**20:,.0f}",
    ]


def _secs(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _ratio_lines(record: Mapping[str, Any]) -> list[str]:
    rows = [
        [
            f"{ratio['arm']} over {ratio['over']}",
            f"{ratio['median']:.2f}",
            f"({ratio['low']:.2f} to {ratio['high']:.2f})",
            _TOO_WIDE if ratio["verdict"] == stats.TOO_WIDE else ratio["verdict"],
        ]
        for ratio in record["ratios"]
        if ratio["arm"].startswith("engine")
    ]
    return align(rows) if rows else []
