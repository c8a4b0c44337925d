"""Where the time of profiled steps went, computed from a trace."""

from __future__ import annotations

import collections
import itertools
import re
import statistics
from collections.abc import Callable, Iterable
from typing import Any

from ..graph_loops import NEXT_SCOPE
from .intervals import Interval, clip, complement, innermost, total, union
from .xplane import Event, Line, Trace

_REDUCE = re.compile(r"Collective(Reduce|Gather|Bcast|AllToAll)\w*|Nccl\w+|nccl\w+|all-reduce.*")
_SECS = 1e-12  # a picosecond
_NUM_GAPS = 5


def summarize(trace: Trace, *, num_replicas: int = 1) -> dict[str, Any]:
    """Returns where the time went between the start of the first call and the end of the last.

    Times are seconds over all steps. The time of an operation is its time on a thread or stream
    without that of the operations nested in it. Threads work in parallel, so the sum may exceed the
    wall time.

    Args:
      trace: With step markers.
      num_replicas: With several, sums of tensors (`AddN`) count as reduce, because some ways of
        reducing leave no other trace.

    Returns:
      JSON-ready: `first_step`, `last_step`, `num_steps`, `window_secs`; `step_secs` (median from
      the start of a call to that of the next) and `call_secs` (median); `devices`; `wall` (parts of
      the wall time, whose shares sum to 1); `categories`, `types` and `operations` (those with the
      most time first); `threads`; `gaps` (times in which no operation runs on any thread, the
      longest first); `input`; `reduce`.
    """
    window = trace.window
    events = [_cut(line.events, window) for line in trace.device_lines]
    parts = [part for line in events for part in innermost(e for e in line if e.kind == "op")]
    ops = [event for line in events for event in line if event.kind == "op"]

    def category(event: Event) -> str:
        return _category(event, num_replicas)

    calls = sorted(trace.steps.values())
    starts = [start for start, _ in calls]
    periods = [b - a for a, b in itertools.pairwise(starts)] or [total(calls[:1])]
    gaps = complement([e.interval for e in ops], window)
    return {
        "first_step": min(trace.steps),
        "last_step": max(trace.steps),
        "num_steps": len(calls),
        "window_secs": (window[1] - window[0]) * _SECS,
        "step_secs": statistics.median(periods) * _SECS,
        "call_secs": statistics.median(end - start for start, end in calls) * _SECS,
        "devices": sorted({line.device for line in trace.lines if line.device}) or ["CPU"],
        "wall": _wall(calls, gaps, window),
        "categories": _group(parts, ops, lambda e: {"category": category(e)}),
        "types": _group(parts, ops, lambda e: {"type": e.type, "category": category(e)}),
        "operations": _group(
            parts, ops, lambda e: {"name": e.name, "type": e.type, "category": category(e)}
        ),
        "threads": [_thread(line, trace, window) for line in trace.lines],
        "gaps": [_gap(gap, trace) for gap in sorted(gaps, key=lambda g: g[0] - g[1])[:_NUM_GAPS]],
        "input": _input(trace, window),
        "reduce": _reduce(*([e for e in es if category(e) == "reduce"] for es in (parts, ops))),
    }


def _cut(events: Iterable[Event], window: Interval) -> list[Event]:
    cut = (e._replace(start=max(e.start, window[0]), end=min(e.end, window[1])) for e in events)
    return [event for event in cut if event.start < event.end]


def _category(event: Event, num_replicas: int) -> str:
    if event.is_input:
        return "input"
    is_sum = event.type == "AddN" and num_replicas > 1
    return "reduce" if is_sum or _REDUCE.fullmatch(event.type) else "compute"


def _wall(calls: list[Interval], gaps: list[Interval], window: Interval) -> dict[str, Any]:
    """Splits the window by whether an operation runs, and if none does, by where that is."""
    whole = window[1] - window[0]
    in_calls = [(call, part) for call in calls for part in clip(gaps, call)]
    # Until the first operation of a call: Python, the runtime, threads that wake up.
    starts = total(part for call, part in in_calls if part[0] == call[0])
    parts = {
        "operations": whole - total(gaps),
        "call_starts": starts,
        "gaps_in_calls": total(part for _, part in in_calls) - starts,
        "between_calls": total(gaps) - total(part for _, part in in_calls),
    }
    return {k: {"secs": v * _SECS, "share": v / whole} for k, v in parts.items()}


def _gap(gap: Interval, trace: Trace) -> dict[str, Any]:
    step = max(step for step, (start, _) in trace.steps.items() if start <= gap[0])
    after = gap[0] - trace.steps[step][0]
    return {"secs": (gap[1] - gap[0]) * _SECS, "step": step, "after_secs": after * _SECS}


def _group(
    parts: list[Event], ops: list[Event], key: Callable[[Event], dict[str, str]]
) -> list[dict[str, Any]]:
    """Sums the operations that have the same key, those with the most time first."""
    counts = collections.Counter(tuple(key(event).items()) for event in ops)
    times: collections.Counter[tuple[tuple[str, str], ...]] = collections.Counter()
    for part in parts:
        times[tuple(key(part).items())] += part.end - part.start
    whole = times.total() or 1
    rows = [
        dict(names) | {"count": count, "secs": times[names] * _SECS, "share": times[names] / whole}
        for names, count in counts.items()
    ]
    return sorted(rows, key=lambda row: -row["secs"])


def _thread(line: Line, trace: Trace, window: Interval) -> dict[str, Any]:
    """Returns how long a thread ran operations, and how long it did any known work."""
    parts = list(innermost(e for e in _cut(line.events, window) if e.kind in ("op", "stage")))
    ops = union(e.interval for e in parts if e.kind == "op")
    busy = [e.interval for e in parts if not e.is_waiting]
    busy += clip([e.interval for e in line.events if e.kind == "region"], window)
    busy += list(trace.steps.values()) if line.name == trace.marker_line else []
    busy_time = total(union(busy))
    return {
        "name": line.name,
        "operations_secs": total(ops) * _SECS,
        "busy_secs": busy_time * _SECS,
        "idle_share": 1 - busy_time / (window[1] - window[0]),
    }


def _input(trace: Trace, window: Interval) -> dict[str, Any]:
    """Returns what batches cost: work on all threads, and wall time in which one is requested.

    Also `made_in_graph`: whether the compiled function makes the batches itself.
    """
    lines = [[e for e in _cut(line.events, window) if e.is_input] for line in trace.lines]
    events = [event for line in lines for event in line]
    parts = [p for line in lines for p in innermost(e for e in line if e.kind in ("op", "stage"))]
    made = [e for e in events if e.kind == "op" and e.name.split("/")[0] == NEXT_SCOPE]
    asked = [e for e in events if e.kind == "next"]
    has_stages = bool(asked) or any(e.kind == "stage" for e in events)
    return {
        "made_in_graph": bool(made) and not has_stages,
        "work_secs": total(p.interval for p in parts if not p.is_waiting) * _SECS,
        "next_secs": total(union(e.interval for e in (asked if has_stages else made))) * _SECS,
    }


def _reduce(parts: list[Event], ops: list[Event]) -> dict[str, Any]:
    return {
        "count": len(ops),
        "secs": total(p.interval for p in parts) * _SECS,
        "wall_secs": total(union(e.interval for e in ops)) * _SECS,
    }
