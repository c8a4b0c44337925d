"""Records as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.reporting.races import Found, Race, Record, name_of, when
from benchmarks.reporting.stats import TOO_WIDE
from benchmarks.reporting.targets import Outcome

NOTHING = "-"
_STATUS = {"ok": "ok", "not_installed": "not installed", "not_implemented": "not implemented"}
# Settings that are long lists, of arms that measure before they race: in the record alone.
_TRIED = ("trials", "tried", "threads_tried")
# What ended a race, in words.
_STOPPED_BY = {
    "intervals": "narrow intervals",
    "max_secs": "the limit of time",
    "num_repeats": "the number of rounds",
}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def number(value: float | None, digits: int = 3) -> str:
    """Returns a number with `digits` significant digits, and commas."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits}g}")
    decimals = max(0, digits - len(str(int(abs(rounded))))) if abs(rounded) >= 1 else None
    return f"{rounded:g}" if decimals is None else f"{rounded:,.{decimals}f}"


def percent(share: float | None) -> str:
    """Returns a share in percent."""
    return NOTHING if share is None else f"{number(100 * share, 2)} %"


def status(arm: Mapping[str, Any]) -> str:
    """Returns an arm's status in words."""
    if arm["status"] == "ok" and arm.get("is_ceiling"):
        return "ok, a bound"
    return _STATUS.get(arm["status"], arm["status"])


def arms_table(record: Record) -> str:
    """Returns a table with a row of figures for each arm."""
    arms = record["arms"]
    has_energy = any(arm.get("joules_per_image") is not None for arm in arms.values())
    header = ["arm", "status", "images/s", "quartiles", "us/step", "of the roof", "start, s"]
    header += ["to 97 %, s", "to 99 %, s", "peak memory"] + ["J/image"] * has_energy
    return table(header, (_arm_row(name, arm, has_energy) for name, arm in arms.items()))


def _arm_row(name: str, arm: Mapping[str, Any], has_energy: bool) -> list[str]:
    if arm["status"] != "ok":
        return [name, status(arm), *[NOTHING] * (8 + has_energy)]
    speed, secs_to = arm["images_per_sec"], arm.get("secs_to_accuracy") or {}
    row = [
        name,
        status(arm),
        number(speed["median"]),
        f"{number(speed['quartile_1'])} to {number(speed['quartile_3'])}",
        number(arm["usecs_per_step"]["median"]),
        percent(arm.get("share_of_roof")),
        number(arm.get("startup_secs")),
        number(secs_to.get("0.97")),
        number(secs_to.get("0.99")),
        gigabytes(arm.get("peak_memory_bytes")),
    ]
    return row + [number(arm.get("joules_per_image"))] * has_energy


def gigabytes(num_bytes: float | None) -> str:
    """Returns a size of memory in GiB."""
    return NOTHING if num_bytes is None else f"{num_bytes / 2**30:.2f} GiB"


def reasons(record: Record) -> str:
    """Returns a line for each arm without figures, with the reason."""
    return "\n".join(
        f"- `{name}`: {status(arm)}{': ' + one_line(arm['reason']) if arm.get('reason') else ''}"
        for name, arm in record["arms"].items()
        if arm["status"] != "ok"
    )


def settings(record: Record) -> str:
    """Returns a line for each arm that chose settings for itself."""
    return "\n".join(
        f"- `{name}`: "
        + ", ".join(f"{k}={_plain(v)}" for k, v in arm["settings"].items() if k not in _TRIED)
        for name, arm in record["arms"].items()
        if arm.get("settings") and arm["status"] == "ok"
    )


def ratios_table(record: Record) -> str:
    """Returns a table with a row for each pair of arms."""
    rows = ([r["arm"], r["over"], *with_interval(r), r["verdict"]] for r in record["ratios"])
    return table(["arm", "over", "ratio", "95 % interval", "verdict"], rows)


def with_interval(ratio: Mapping[str, Any]) -> tuple[str, str]:
    """Returns a ratio and its 95 % interval, which alone is shown if it is too wide."""
    median = NOTHING if ratio["verdict"] == TOO_WIDE else number(ratio["median"])
    return median, interval(ratio["low"], ratio["high"])


def interval(low: float, high: float) -> str:
    """Returns an interval in words."""
    return f"{number(low)} to {number(high)}"


def speed_targets_table(outcomes: Iterable[Outcome]) -> str:
    """Returns a table with a row for each target of speed."""
    header = ["workload", "arm", "over", "target", "measured", "runs", "range of the runs"]
    return table([*header, "95 % interval of the newest", ""], map(_target_row, outcomes))


def _target_row(outcome: Outcome) -> list[str]:
    target, found = outcome.target, outcome.found
    return [
        target.workload,
        target.arm,
        target.over if found.over == target.over else f"{target.over}: {found.over}",
        f"{target.ratio:.2f}",
        number(found.median),
        runs_of(found),
        interval(*found.range) if found.range else NOTHING,
        interval(*found.interval) if found.interval else NOTHING,
        strong(outcome.verdict),
    ]


def runs_of(found: Found) -> str:
    """Returns how many runs have a ratio, and on how many kinds of processor if not on one."""
    where = f" on {found.num_processors} processors" if found.num_processors > 1 else ""
    return f"{found.num_runs}{where}" if found.num_runs else NOTHING


def other_targets_table(groups: Mapping[str, Sequence[Outcome]]) -> str:
    """Returns a table with a row for each workload and a column for each of the other targets.

    Args:
      groups: Title of a column to its outcomes.
    """
    names = dict.fromkeys(
        outcome.target.workload
        for outcomes in groups.values()
        for outcome in outcomes
        if outcome.found.median is not None
    )
    by_title = [{one.target.workload: one for one in outcomes} for outcomes in groups.values()]
    rows = ([name, *(_short(outcomes.get(name)) for outcomes in by_title)] for name in names)
    return table(["workload", *groups], rows)


def _short(outcome: Outcome | None) -> str:
    if outcome is None:
        return NOTHING
    if outcome.found.median is None:
        return outcome.verdict
    found = outcome.found
    is_range = found.range is not None and found.range[0] < found.range[1]
    spread = f" ({interval(*found.range)})" if found.range and is_range else ""
    return f"{number(found.median)}{spread}: {strong(outcome.verdict)}"


def strong(verdict: str) -> str:
    """Returns a verdict, in bold if it is a miss."""
    return f"**{verdict}**" if verdict.startswith("missed") else verdict


def speeds_table(raced: Mapping[str, Race]) -> str:
    """Returns a table of images/s with a row for each arm and a column for each race.

    The speeds are those of each race's fullest run.
    """
    records = {name: race.fullest for name, race in raced.items()}
    names = dict.fromkeys(name for record in records.values() for name in record["arms"])
    rows = [
        [f"**{name}**" if name.startswith("engine") else name]
        + [_speed(record["arms"].get(name)) for record in records.values()]
        for name in names
    ]
    return table(["images/s", *records], rows)


def _speed(arm: Mapping[str, Any] | None) -> str:
    if arm is None:
        return NOTHING
    return number(arm["images_per_sec"]["median"]) if arm["status"] == "ok" else status(arm)


def records_table(raced: Mapping[str, Race]) -> str:
    """Returns a table with a row for each run of each race, oldest first."""
    header = ["race", "date", "machine", "rounds", "stopped by", "engine over fit"]
    rows = (
        _record_row(record, is_counted=record in race.runs)
        for race in raced.values()
        for record in sorted([*race.runs, *race.others], key=when)
    )
    return table([*header, "95 % interval"], rows)


def _record_row(record: Record, *, is_counted: bool) -> list[str]:
    environment = record["environment"]
    ratios = {(one["arm"], one["over"]): one for one in record["ratios"]}
    found = ratios.get(("engine", "keras_fit"))
    name = name_of(record)
    return [
        name if is_counted else f"{name}, not counted: other machine or versions",
        when(record),
        f"{environment.get('num_cores', '?')} cores of {environment.get('processor', '?')}",
        str(record["num_repeats"]),
        _STOPPED_BY.get(record["stopped_by"], record["stopped_by"]),
        *(with_interval(found) if found else (NOTHING, NOTHING)),
    ]


def one_line(text: str) -> str:
    """Returns a text in one line."""
    return " ".join(str(text).split())


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else one_line(str(value))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
