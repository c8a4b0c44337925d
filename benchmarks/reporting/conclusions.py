"""What to conclude from the races on one machine: sentences that are computed from the records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.reporting.tables import number
from benchmarks.reporting.targets import Record

_ENGINE = "engine"
_VERDICTS = {
    "faster": "faster on",
    "slower": "slower on",
    "undecided": "not clearly different on",
}


def conclude(records: Mapping[str, Record]) -> str:
    """Returns up to three sentences on the speed of the engine, a line each; "" without a race.

    They compare it with fit, with fit at its fastest settings, and with the fastest other arm.

    Args:
      records: By `targets.name_of`, all of the same hardware.
    """
    sentences = (
        _compare(records, "keras_fit"),
        _compare(records, "keras_fit_tuned"),
        _name_faster_arms(records),
    )
    return "\n".join(filter(None, sentences))


def _compare(records: Mapping[str, Record], over: str) -> str:
    found: dict[str, list[str]] = {verdict: [] for verdict in _VERDICTS}
    for name, record in records.items():
        for ratio in _ratios_of_engine(record):
            if ratio["over"] == over:
                found[ratio["verdict"]].append(f"{name} ({_times(ratio['median'])})")
    parts = [f"{_VERDICTS[verdict]} {_join(names)}" for verdict, names in found.items() if names]
    return f"Compared with `{over}`, `{_ENGINE}` is {'; '.join(parts)}." if parts else ""


def _name_faster_arms(records: Mapping[str, Record]) -> str:
    """Returns a sentence with the arm of each workload that is furthest ahead of the engine."""
    ahead, nobody, have_bits = [], [], False
    for name, record in records.items():
        ratios = _ratios_of_engine(record)
        faster = [ratio for ratio in ratios if _is_faster(record, ratio)]
        if faster:
            best = min(faster, key=lambda ratio: float(ratio["median"]))
            ahead.append(f"`{best['over']}` on {name} ({_times(1 / best['median'])})")
            have_bits |= record["arms"][best["over"]]["claims_bits"]
        elif ratios:
            nobody.append(name)
    parts = []
    if ahead:
        bits = "" if have_bits else ", without fit's bits"
        parts.append(f"furthest ahead of `{_ENGINE}`{bits}: {_join(ahead)}")
    if nobody:
        parts.append(f"no arm is clearly faster than `{_ENGINE}` on {_join(nobody)}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _ratios_of_engine(record: Record) -> list[Mapping[str, Any]]:
    return [ratio for ratio in record["ratios"] if ratio["arm"] == _ENGINE]


def _is_faster(record: Record, ratio: Mapping[str, Any]) -> bool:
    """Returns whether an arm beats the engine beyond noise, on the same data."""
    is_bound = record["arms"][ratio["over"]].get("is_ceiling", False)
    return ratio["verdict"] == "slower" and not is_bound


def _times(ratio: float) -> str:
    return f"{number(ratio)}x"


def _join(items: Iterable[str]) -> str:
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last
