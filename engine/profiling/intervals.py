"""Arithmetic of intervals, and to which event of a thread each moment belongs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .xplane import Event

Interval = tuple[int, int]  # start and end, in picoseconds


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """Returns the same moments as disjoint intervals, in order."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        elif end > start:
            merged.append((start, end))
    return merged


def complement(intervals: Iterable[Interval], window: Interval) -> list[Interval]:
    """Returns the parts of a window that no interval covers, in order."""
    rest, position = [], window[0]
    for start, end in union(clip(intervals, window)):
        if start > position:
            rest.append((position, start))
        position = end
    return rest + ([(position, window[1])] if position < window[1] else [])


def clip(intervals: Iterable[Interval], window: Interval) -> list[Interval]:
    """Returns the parts of intervals that lie in a window."""
    cut = ((max(start, window[0]), min(end, window[1])) for start, end in intervals)
    return [(start, end) for start, end in cut if start < end]


def total(intervals: Iterable[Interval]) -> int:
    """Returns the sum of the lengths, in picoseconds."""
    return sum(end - start for start, end in intervals)


def innermost(events: Iterable[Event]) -> Iterator[Event]:
    """Yields parts of events so that each moment belongs to the event that began last.

    Args:
      events: Of one line, in the order of their start; they may be nested.
    """
    stack: list[Event] = []
    now = 0
    for event in events:
        yield from _run_down(stack, now, event.start)
        stack.append(event)
        now = event.start
    if stack:
        yield from _run_down(stack, now, max(event.end for event in stack))


def _run_down(stack: list[Event], now: int, until: int) -> Iterator[Event]:
    while stack and now < until:
        top = stack[-1]
        end = min(top.end, until)
        if end > now:
            yield top._replace(start=now, end=end)
            now = end
        if top.end <= now:
            stack.pop()
