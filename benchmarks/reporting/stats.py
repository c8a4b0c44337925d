"""Statistics of repeats: medians, quartiles, and ratios of paired speeds with their intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95
# Of an interval, relative to the ratio: a wider one names no winner.
MAX_WIDTH = 0.2
TOO_WIDE = "too wide"
_SEED = 0


@dataclasses.dataclass(frozen=True)
class Summary:
    """Median and quartiles of a sample."""

    median: float
    quartile_1: float
    quartile_3: float


@dataclasses.dataclass(frozen=True)
class Ratio:
    """The ratio of the speeds of two arms that ran in the same rounds.

    Attributes:
      median: Over the rounds, of the ratio within a round.
      low: Lower end of the 95 % bootstrap interval.
      high: Upper end.
      verdict: "faster", "slower", "undecided", or "too wide": the interval says too little.
    """

    median: float
    low: float
    high: float
    verdict: str


@dataclasses.dataclass(frozen=True)
class MeanRatio:
    """The ratio of two means over pairs, with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


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
    """Compares two arms that ran in the same rounds, within seconds of one another.

    What slows a round down slows both, and so does not change their ratio. The verdict is
    "too wide" if the interval is wider than a fifth of the ratio, and "undecided" if it holds 1.

    Args:
      speeds: Of the first arm, one per round; larger is better.
      others: Of the second arm, in the same rounds.

    Raises:
      ValueError: If the arms have not run in the same rounds.
    """
    ratios = _paired(speeds, others)
    low, high = _bootstrap_median(ratios)
    median = float(np.median(ratios))
    verdict = "faster" if low > 1 else "slower" if high < 1 else "undecided"
    is_wide = high - low > MAX_WIDTH * median
    return Ratio(median, low, high, TOO_WIDE if is_wide else verdict)


def compare_totals(values: Sequence[float], others: Sequence[float]) -> MeanRatio:
    """Compares the sums of two samples of pairs, in which a rare cost counts with its share.

    Args:
      values: Of the numerator.
      others: Of the denominator, in the same pairs.

    Raises:
      ValueError: If there are no pairs.
    """
    drawn = _draws(len(_paired(values, others)))
    one, other = (np.asarray(sample, np.float64) for sample in (values, others))
    low, high = _interval(one[drawn].sum(axis=1) / other[drawn].sum(axis=1))
    return MeanRatio(float(one.sum() / other.sum()), low, high)


def width(speeds: Sequence[float], others: Sequence[float]) -> float:
    """Returns how wide the interval of the ratio is, as a share of the ratio; see `compare`."""
    ratios = _paired(speeds, others)
    low, high = _bootstrap_median(ratios)
    return (high - low) / float(np.median(ratios))


def _paired(speeds: Sequence[float], others: Sequence[float]) -> npt.NDArray[np.float64]:
    if len(speeds) != len(others) or not len(speeds):
        raise ValueError(f"{len(speeds)} rounds of one arm and {len(others)} of the other")
    return np.asarray(speeds, np.float64) / np.asarray(others, np.float64)


def _bootstrap_median(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Returns the 95 % interval of the median (percentile bootstrap). Deterministic."""
    return _interval(np.median(values[_draws(len(values))], axis=1))


def _draws(num_pairs: int) -> npt.NDArray[np.int64]:
    """Returns the pairs of each resample, [NUM_RESAMPLES, num_pairs]."""
    return np.random.default_rng(_SEED).integers(0, num_pairs, (NUM_RESAMPLES, num_pairs))


def _interval(found: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Returns the 95 % interval of what was found in each resample."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)
