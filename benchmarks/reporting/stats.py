"""Statistics of repeats: medians, quartiles, and ratios with their intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95
_SEED = 0


@dataclasses.dataclass(frozen=True)
class Summary:
    """Median and quartiles of a sample."""

    median: float
    quartile_1: float
    quartile_3: float

    def overlaps(self, other: Summary) -> bool:
        """Returns whether the intervals between the quartiles overlap."""
        return self.quartile_1 <= other.quartile_3 and other.quartile_1 <= self.quartile_3


@dataclasses.dataclass(frozen=True)
class Ratio:
    """The ratio of the median speeds of two arms.

    Attributes:
      median: Ratio of the medians.
      low: Lower end of the 95 % bootstrap interval.
      high: Upper end.
      verdict: "faster", "slower" or "undecided".
    """

    median: float
    low: float
    high: float
    verdict: str


def summarize(values: Sequence[float]) -> Summary:
    """Returns median and quartiles, with linear interpolation.

    Raises:
      ValueError: If there are no values.
    """
    if not len(values):
        raise ValueError("no values to summarize")
    first, median, third = np.quantile(np.asarray(values, np.float64), [0.25, 0.5, 0.75])
    return Summary(float(median), float(first), float(third))


def compare(speeds: Sequence[float], others: Sequence[float]) -> Ratio:
    """Compares two arms that ran in the same rounds.

    The verdict is "undecided" unless the interval of the ratio excludes 1 and the quartiles of the
    two do not overlap.

    Args:
      speeds: Of the first arm, one per round; larger is better.
      others: Of the second arm, in the same rounds.
    """
    low, high = bootstrap_ratio(speeds, others)
    one, other = summarize(speeds), summarize(others)
    verdict = "undecided"
    if not one.overlaps(other):
        verdict = "faster" if low > 1 else "slower" if high < 1 else "undecided"
    return Ratio(one.median / other.median, low, high, verdict)


def bootstrap_ratio(speeds: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % interval of the ratio of medians (percentile bootstrap).

    Resamples rounds, not single values: the arms of a round share the load of the machine, which
    cancels out. Deterministic.

    Args:
      speeds: Of the first arm, one per round.
      others: Of the second arm, in the same rounds.

    Raises:
      ValueError: If the arms have not run in the same rounds.
    """
    if len(speeds) != len(others) or not len(speeds):
        raise ValueError(f"{len(speeds)} rounds of one arm and {len(others)} of the other")
    samples: npt.NDArray[np.float64] = np.asarray([speeds, others], np.float64)
    num_rounds = samples.shape[1]
    drawn = np.random.default_rng(_SEED).integers(0, num_rounds, (NUM_RESAMPLES, num_rounds))
    one, other = np.median(samples[:, drawn], axis=2)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(one / other, [tail, 1 - tail])
    return float(low), float(high)
