"""Statistics of known samples."""

import numpy as np
import pytest

from benchmarks.reporting import stats


def test_median_and_quartiles_by_hand():
    assert stats.summarize([4, 1, 3, 2, 5]) == stats.Summary(3, 2, 4)
    assert stats.summarize([1, 2, 3, 4]) == stats.Summary(2.5, 1.75, 3.25)
    assert stats.summarize([7]) == stats.Summary(7, 7, 7)


def test_no_value_is_an_error():
    with pytest.raises(ValueError, match="no value"):
        stats.summarize([])


def test_ratio_is_the_median_of_those_within_the_rounds():
    ratio = stats.compare([20, 22, 24, 26, 28], [10, 11, 12, 13, 14])
    assert ratio.median == 2
    # The same factor in every round: whatever rounds are drawn, the ratio is 2.
    assert (ratio.low, ratio.high) == (2, 2)
    assert ratio.verdict == "faster"
    # Of the medians it would be 1.
    assert stats.compare([1, 10, 100], [2, 10, 10]).median == 1
    assert stats.compare([1, 10, 100], [10, 5, 50]).median == 2


def test_what_slows_a_round_down_cancels_out():
    # The machine is ten times slower in some rounds, for both arms alike.
    moods = np.array([1, 0.1, 1, 0.1, 1, 0.1, 1])
    ratio = stats.compare(3 * moods, moods)
    assert (ratio.low, ratio.high) == pytest.approx((3, 3))
    # The same speeds in other rounds: nothing cancels out.
    ratio = stats.compare(3 * moods, 1.1 - moods)
    assert ratio.low < 1 < ratio.high


def test_interval_is_that_of_all_draws():
    # Of two rounds, the four equally likely draws give the ratios 1, 1.5, 1.5 and 2.
    ratio = stats.compare([1, 2], [1, 1])
    assert (ratio.low, ratio.high) == (1, 2)
    assert stats.width([1, 2], [1, 1]) == pytest.approx(1 / 1.5)


def test_interval_of_many_rounds_is_that_of_theory():
    rng = np.random.default_rng(1)
    speeds = rng.normal(100, 5, 400)
    ratio = stats.compare(speeds, np.full(400, 50.0))
    # The standard error of a median of n normal values is 1.2533 sigma / sqrt(n).
    half_width = 1.96 * 1.2533 * 5 / np.sqrt(400) / 50
    assert (ratio.high - ratio.low) / 2 == pytest.approx(half_width, rel=0.25)


def test_the_same_samples_give_the_same_interval():
    speeds, others = [5.0, 6.0, 7.0, 5.5], [5.1, 6.2, 6.6, 5.4]
    assert stats.compare(speeds, others) == stats.compare(speeds, others)


@pytest.mark.parametrize(
    ("speeds", "others", "verdict"),
    [
        ([10, 11, 12], [5, 5.5, 6], "faster"),
        ([5, 5.5, 6], [10, 11, 12], "slower"),
        ([10, 11, 12], [10, 11, 12], "undecided"),
        # Faster in one round of three.
        ([10, 11, 12.5], [10, 11, 12], "undecided"),
        # Twice as fast, or thrice.
        ([20, 33, 24], [10, 11, 12], "too wide"),
    ],
)
def test_a_winner_is_named_only_where_the_interval_allows_it(speeds, others, verdict):
    assert stats.compare(speeds, others).verdict == verdict


def test_arms_of_other_rounds_are_not_compared():
    with pytest.raises(ValueError, match="3 rounds of one arm and 2 of the other"):
        stats.compare([1, 2, 3], [1, 2])
