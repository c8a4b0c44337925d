"""Runs within one process that take turns, until the intervals of their ratios are narrow.

For what needs no process of its own; see `harness` for what does.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from benchmarks.race.stopping import MAX_WIDTH, MIN_ROUNDS, MIN_ROUNDS_OF_INTERVALS
from benchmarks.reporting import stats

# Runs once and returns the seconds that count.
Run = Callable[[], float]


def take_turns(
    runs: Mapping[str, Run], pairs: Collection[tuple[str, str]], max_secs: float
) -> dict[str, list[float]]:
    """Returns the seconds of each run, in rounds; every second round is backwards.

    Ends once the intervals of all ratios are at most 5 % of the ratio, after ten rounds or more, or
    when the time is up, after five.

    Args:
      runs: By name; already traced.
      pairs: Names of the runs whose ratios matter: of the numerator, and of the denominator.
      max_secs: No further round starts after this time.
    """
    secs: dict[str, list[float]] = {name: [] for name in runs}
    deadline = time.perf_counter() + max_secs
    for num_rounds in itertools.count(1):
        for name in list(runs)[:: 1 if num_rounds % 2 else -1]:
            secs[name].append(runs[name]())
        if num_rounds >= MIN_ROUNDS and time.perf_counter() > deadline:
            break
        if num_rounds >= MIN_ROUNDS_OF_INTERVALS and _are_narrow(to_speeds(secs), pairs):
            break
    return secs


def to_speeds(secs: Mapping[str, Sequence[float]], amount: float = 1.0) -> dict[str, list[float]]:
    """Returns how much was done per second in each run.

    Args:
      secs: As `take_turns` returns them.
      amount: What is done in a run, such as its number of steps.
    """
    return {name: [amount / one for one in values] for name, values in secs.items()}


def _are_narrow(speeds: Mapping[str, Sequence[float]], pairs: Collection[tuple[str, str]]) -> bool:
    return all(stats.width(speeds[one], speeds[over]) <= MAX_WIDTH for one, over in pairs)
