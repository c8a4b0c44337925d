"""Numbers and times as people read them."""

from __future__ import annotations

import json
import math
from typing import Any

_PARTS = {
    "compute": "computing steps",
    "data": "waiting for input",
    "dispatch": "starting executions",
    "metrics": "metrics",
    "evaluation": "validation",
    "tracing": "tracing graphs",
    "checkpoints": "saving checkpoints",
    "setup": "setting up",
    "workers": "waiting for other workers",
    "other": "the loop itself",
}


def show_number(value: float | None) -> str:
    """Returns a number with as many digits as tell something.

    Example:
      >>> show_number(0.98110002), show_number(1234567.0), show_number(None)
      ('0.9811', '1,234,567', '-')
    """
    if value is None:
        return "-"
    if math.isfinite(value) and (abs(value) >= 1000 or value == int(value)):
        return f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.4g}"
    return f"{value:.4g}"


def show_secs(secs: float | None) -> str:
    """Returns a time.

    Example:
      >>> show_secs(0.0123), show_secs(38.3), show_secs(3725)
      ('12.3 ms', '38.3 s', '1 h 2 min 5 s')
    """
    if secs is None:
        return "-"
    if secs < 60:
        return f"{secs:.3g} s" if secs >= 1 or secs == 0 else f"{1e3 * secs:.3g} ms"
    minutes, rest = divmod(round(secs), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours:,} h " if hours else "") + f"{minutes} min {rest} s"


def show_bytes(value: float | None) -> str:
    """Returns a size in MiB."""
    return "-" if value is None else f"{value / 2**20:,.0f} MiB"


def show_value(value: Any) -> str:
    """Returns a value of a JSON file as a person would write it.

    Example:
      >>> show_value(True), show_value(None), show_value("a"), show_value({"a": [1]})
      ('yes', 'none', 'a', '{"a": [1]}')
    """
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def name_part(name: str) -> str:
    """Returns what a part of `summary.json`'s timing is called here.

    Example:
      >>> name_part("evaluation"), name_part("writers/CSVWriter")
      ('validation', 'writer CSVWriter')
    """
    kind, _, rest = name.partition("/")
    return f"{kind.removesuffix('s')} {rest}" if rest else _PARTS.get(name, name)
