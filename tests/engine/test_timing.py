"""The clock of a run: parts that sum to the wall time, executions, percentiles, words."""

import itertools
import re

import numpy as np
import pytest

from gradloop.engine.timing import Samples, Timing, format_line


class Clock:
    """Moves only where a test moves it."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_part_pauses_the_one_outside():
    clock = Clock()
    timing = Timing(clock)
    clock.now += 1
    with timing.part("outer"):
        clock.now += 2
        with timing.part("inner"):
            clock.now += 4
        with timing.part("outer"):
            clock.now += 8
        clock.now += 16
    clock.now += 32
    timing.stop()
    assert timing.secs == {"other": 33, "outer": 26, "inner": 4}
    assert timing.wall_secs == 63


def test_a_part_ends_with_an_exception():
    clock = Clock()
    timing = Timing(clock)
    with pytest.raises(KeyError), timing.part("fails"):
        clock.now += 1
        raise KeyError
    clock.now += 2
    timing.stop()
    assert timing.secs == {"other": 2, "fails": 1}


def test_what_an_evaluation_consists_of_is_evaluation_but_hooks_and_tracing():
    clock = Clock()
    timing = Timing(clock)
    with timing.part("evaluation"):
        for name in ("compute", "metrics", "hooks/A", "tracing"):
            with timing.part(name):
                clock.now += 1
    timing.stop()
    assert timing.secs == {"other": 0, "evaluation": 2, "hooks/A": 1, "tracing": 1}


def book(timing, clock, num_steps, *, secs, graph_secs, waited_secs, has_traced=False):
    """One execution: what its call takes, in the graph, and of that waiting for a batch."""
    with timing.part("dispatch"):
        clock.now += secs
    timing.book_execution(num_steps, graph_secs, waited_secs, has_traced=has_traced)


def test_an_execution_is_dispatch_compute_and_waiting():
    clock = Clock()
    timing = Timing(clock)
    book(timing, clock, 4, secs=10.0, graph_secs=8.0, waited_secs=3.0)
    timing.stop()
    assert timing.secs == {"other": 0, "dispatch": 2, "compute": 5, "data": 3}
    assert timing.to_dict(4)["parts"]["compute"]["usecs_per_step"] == 5e6 / 4
    assert timing.to_dict(4)["execution_secs"] == {"p50": 10, "p95": 10, "p99": 10}
    assert timing.to_dict(4)["step_secs"]["p99"] == 2.5


def test_the_first_run_of_a_graph_is_tracing_but_for_what_a_run_takes():
    clock = Clock()
    timing = Timing(clock)
    book(timing, clock, 3, secs=20.0, graph_secs=9.0, waited_secs=1.0, has_traced=True)
    book(timing, clock, 2, secs=2.0, graph_secs=2.0, waited_secs=0.0)
    timing.stop()
    # 11 s outside the graph; of 8 s in it, 3 steps take 3 s.
    assert timing.secs["tracing"] == 11 + 5
    assert timing.secs["compute"] == 3 + 2
    assert timing.to_dict(5)["execution_secs"]["p99"] == 2


def test_a_part_is_never_negative_though_clocks_differ():
    clock = Clock()
    timing = Timing(clock)
    book(timing, clock, 1, secs=1.0, graph_secs=1.0001, waited_secs=1.0002)
    timing.stop()
    assert min(timing.secs.values()) == 0
    assert timing.wall_secs == 1


@pytest.mark.parametrize("has_traced", [False, True])
def test_an_execution_of_an_evaluation_is_evaluation_and_no_sample(has_traced):
    clock = Clock()
    timing = Timing(clock)
    with timing.part("evaluation"):
        book(timing, clock, 4, secs=10.0, graph_secs=8.0, waited_secs=3.0, has_traced=has_traced)
    timing.stop()
    tracing = {"tracing": 2, "evaluation": 8} if has_traced else {"evaluation": 10}
    assert timing.secs == {"other": 0, **tracing}
    assert timing.to_dict(0)["step_secs"] is None


def test_waiting_for_the_device_is_part_of_the_execution():
    clock = Clock()
    timing = Timing(clock)
    book(timing, clock, 2, secs=1.0, graph_secs=1.0, waited_secs=0.0)

    class Slow:
        def __array__(self, dtype=None, copy=None):
            clock.now += 3
            return np.zeros(())

    timing.wait_for_device({"loss": Slow(), "accuracy": Slow()})  # one of them is enough
    timing.stop()
    assert timing.secs == {"other": 0, "dispatch": 0, "data": 0, "compute": 4}
    assert timing.to_dict(2)["step_secs"]["p50"] == 2


def test_samples_are_thinned_evenly():
    samples = Samples(max_samples=100)
    for value in range(100_000):
        samples.add(value)
    for percent in (0, 25, 50, 95, 100):
        assert samples.percentile(percent) == pytest.approx(1000 * percent, abs=2500)
    assert Samples().percentile(50) is None


def test_line_names_what_is_large_and_the_percentiles():
    clock = Clock()
    timing = Timing(clock)
    for name, secs in {"compute": 930, "data": 40, "hooks/A": 26, "metrics": 4}.items():
        with timing.part(name):
            clock.now += secs
    timing.stop()
    assert format_line(timing.to_dict(1)) == "93 % compute, 4 % data, 3 % hooks/A"
    for secs in itertools.repeat(0.1, 99):
        timing.execution_secs.add(secs)
    timing.execution_secs.add(1.5)
    line = format_line(timing.to_dict(1))
    assert re.search(r"execution p50 100 ms, p95 100 ms, p99 11[34] ms$", line), line
