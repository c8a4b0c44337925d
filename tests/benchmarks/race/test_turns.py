"""Runs that take turns in one process: their order, and when they end."""

import itertools

import pytest

from benchmarks.race import turns


def runs_of(**secs):
    """Returns runs that take no time and say how long they took, and the order of their calls."""
    order = []
    values = {name: itertools.cycle(of) for name, of in secs.items()}

    def make(name):
        def run():
            order.append(name)
            return next(values[name])

        return run

    return {name: make(name) for name in secs}, order


def test_every_second_round_is_backwards():
    runs, order = runs_of(a=[1.0], b=[2.0], c=[3.0])
    secs = turns.take_turns(runs, [("a", "b")], max_secs=0)
    assert "".join(order) == "abccbaabccbaabc"
    assert secs == {"a": [1.0] * 5, "b": [2.0] * 5, "c": [3.0] * 5}
    assert turns.to_speeds(secs, 6)["b"] == [3.0] * 5


def test_narrow_intervals_end_it_after_ten_rounds():
    runs, _ = runs_of(a=[1.0], b=[2.0, 2.01])
    assert len(turns.take_turns(runs, [("a", "b")], max_secs=60)["a"]) == 10


@pytest.mark.parametrize(("over", "is_late"), [("b", True), ("c", False)])
def test_only_the_ratios_that_matter_keep_it_going(over, is_late):
    runs, _ = runs_of(a=[1.0], b=[1.0, 5.0], c=[1.0])
    secs = turns.take_turns(runs, [("a", over)], max_secs=0.2)
    assert (len(secs["a"]) > 10) == is_late
