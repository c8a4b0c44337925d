"""When a race ends: once what it is about is known well enough, or at a limit."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from benchmarks.reporting import stats

# Of the intervals of the ratios that matter, relative to the ratio.
MAX_WIDTH = 0.05
# Fewer rounds may have a narrow interval by luck.
MIN_ROUNDS_OF_INTERVALS = 10
# Counted rounds that a limit of time leaves.
MIN_ROUNDS = 5

INTERVALS, TIME, ROUNDS = "intervals", "max_secs", "num_repeats"


class Contender(Protocol):
    """What is read of an arm; see `harness.ArmResult`."""

    bits_of: str | None
    is_ceiling: bool
    secs: list[float]

    @property
    def short_name(self) -> str:
        """The last part of a dotted name."""

    @property
    def is_ok(self) -> bool:
        """Whether it is in the race."""


def reason_to_stop(
    arms: Sequence[Contender], num_rounds: int, num_left: int, *, is_late: bool, max_width: float
) -> str | None:
    """Returns why the race ends here: "num_repeats", "max_secs" or "intervals"; None: it goes on.

    Args:
      arms: All that were in the race.
      num_rounds: Counted rounds so far.
      num_left: Rounds up to the limit.
      is_late: Whether the time is up.
      max_width: Of the intervals; 0: they never end a race.
    """
    if num_left == 0:
        return ROUNDS
    if num_rounds >= MIN_ROUNDS_OF_INTERVALS and _are_narrow(arms, max_width):
        return INTERVALS
    return TIME if is_late and num_rounds >= MIN_ROUNDS else None


def _are_narrow(arms: Sequence[Contender], max_width: float) -> bool:
    pairs = list(pairs_that_matter(arms))
    return bool(pairs) and all(_width(*pair) <= max_width for pair in pairs)


def pairs_that_matter(arms: Iterable[Contender]) -> Iterator[tuple[Contender, Contender]]:
    """Yields each arm of the engine with each arm over which its speed is of interest.

    These are all others, with two exceptions. Two arms with bits are compared if the bits are the
    same: `engine` with `keras_fit`, `engine_xla` with `keras_fit_xla`. A ceiling is the engine's.
    """
    known = [arm for arm in arms if arm.is_ok]
    ours = [arm for arm in known if arm.short_name.startswith("engine") and not arm.is_ceiling]
    others = [arm for arm in known if arm not in ours]
    for arm, over in itertools.product(ours, others):
        if over.is_ceiling:
            matters = arm.short_name == "engine"
        else:
            matters = arm.bits_of is None or over.bits_of in (None, arm.bits_of)
        if matters:
            yield arm, over


def _width(arm: Contender, over: Contender) -> float:
    return stats.width(*([1 / secs for secs in one.secs] for one in (arm, over)))
