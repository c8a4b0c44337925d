"""The size of executions: measured, given, or limited by hooks and the end of the data."""

import contextlib
import types

import numpy as np
import pytest

from gradloop.engine import planner as planner_lib
from gradloop.engine.hooks import Hook
from gradloop.engine.loop import fit
from gradloop.engine.planner import Planner
from tests.engine.nets import make_config, make_tiny
from tests.engine.observers import Every


@pytest.fixture
def set_clock(monkeypatch):
    """Lets the planner see given moments, in seconds."""

    def set_moments(moments):
        moments = iter(moments)
        clock = types.SimpleNamespace(perf_counter=lambda: next(moments))
        monkeypatch.setattr(planner_lib, "time", clock)

    return set_moments


def automatic_planner():
    return Planner(make_config(steps_per_execution="auto"))


def test_automatic_size_grows_to_about_a_tenth_of_a_second(set_clock):
    set_clock(np.arange(100) * 0.01)  # each execution takes 10 ms, whatever its size
    planner, sizes = automatic_planner(), []
    for _ in range(5):
        sizes.append(planner.next_size(None, 0))
        planner.measure(sizes[-1])
    assert sizes == [1, 1, 8, 64, 512]  # eightfold at most: 10 ms are below 100 ms


def test_automatic_size_shrinks_when_steps_are_slow(set_clock):
    set_clock([0.0, 0.01, 0.09, 2.0, 3.0])
    planner, sizes = automatic_planner(), []
    for _ in range(5):
        sizes.append(planner.next_size(None, 0))
        planner.measure(sizes[-1])
    assert sizes[:4] in ([1, 1, 8, 9], [1, 1, 8, 10])  # 80 ms for 8 steps
    assert planner.next_size(None, 0) == 1


def test_short_last_execution_does_not_shrink_the_next(set_clock):
    set_clock(np.arange(100) * 0.01)
    planner = automatic_planner()
    for _ in range(4):
        planner.measure(planner.next_size(None, 0))
    assert planner.next_size(None, 0) == 512
    planner.measure(planner.next_size(3, 0))  # three steps were left in the epoch
    assert planner.next_size(None, 0) == 512


def test_a_short_execution_that_is_slow_shrinks_the_next(set_clock):
    set_clock([0.0, 0.01, 0.02, 3.02])
    planner = automatic_planner()
    for _ in range(3):
        planner.measure(planner.next_size(None, 0))
    assert planner.next_size(None, 0) == 64
    planner.measure(planner.next_size(3, 0))
    assert planner.next_size(None, 0) == 1


def test_a_second_run_begins_with_the_size_that_the_first_one_found(dataset):
    state, first, second = make_tiny(), Every(100), Every(100)
    config = make_config(epochs=20, steps_per_execution=None)
    for hook in (first, second):
        fit(state, dataset, config, hooks=[hook])
    assert first.ends[0] == 1 < second.ends[0] - first.ends[-1]


def test_a_pause_is_not_measured(set_clock):
    set_clock([0.0, 0.01, 1000.0, 1000.01])
    planner = automatic_planner()
    planner.measure(1)
    planner.measure(1)
    planner.pause()  # a validation, for example
    planner.measure(8)
    assert planner.next_size(None, 0) == 8
    planner.measure(8)
    assert planner.next_size(None, 0) == 64


@pytest.mark.parametrize(("num_left", "expected"), [(None, 5), (9, 5), (2, 2)])
def test_given_size_is_kept_but_at_the_end(num_left, expected):
    planner = Planner(make_config(steps_per_execution=5))
    planner.measure(5)
    assert planner.next_size(num_left, 0) == expected


def test_periods_of_hooks_cut_executions(dataset):
    hook, other = Every(5), Every(3)
    fit(make_tiny(), dataset, make_config(epochs=2, steps_per_execution=32), hooks=[hook, other])
    assert hook.ends == [3, 5, 6, 7, 9, 10, 12, 14]


class TwoThenAny(Every):
    """Lets the first execution have two steps, and does not limit the others."""

    def max_steps(self, num_steps_completed):
        return 2 if num_steps_completed == 0 else None


def test_max_steps_of_a_hook_limits_the_next_execution(dataset):
    hook = TwoThenAny()
    fit(make_tiny(), dataset, make_config(steps_per_execution=32), hooks=[hook])
    assert hook.ends == [2, 7]


class Around(Hook):
    """Notes when an execution is entered and left."""

    def __init__(self, seen, name):
        self.seen, self.name = seen, name

    @contextlib.contextmanager
    def around_execution(self, num_steps_completed):
        self.seen.append((self.name, num_steps_completed))
        yield
        self.seen.append(self.name)


def test_hooks_surround_executions_of_training_alone(dataset):
    seen = []
    hooks = [Around(seen, "outer"), Around(seen, "inner")]
    fit(
        make_tiny(), dataset, make_config(steps_per_execution=4), validation_data=dataset,
        hooks=hooks,
    )  # fmt: skip
    first = [("outer", 0), ("inner", 0), "inner", "outer"]
    assert seen == [*first, ("outer", 4), ("inner", 4), "inner", "outer"]


def test_a_failing_context_leaves_those_that_were_entered():
    seen = []

    class Fails(Hook):
        def around_execution(self, num_steps_completed):
            raise RuntimeError("planted")

    class Entered(Hook):
        def around_execution(self, num_steps_completed):
            stack = contextlib.ExitStack()
            stack.callback(seen.append, "left")
            return stack

    planner = Planner(make_config(), [Entered(), Fails()])
    with pytest.raises(RuntimeError, match="planted"):
        planner.around_execution(0)
    assert seen == ["left"]
