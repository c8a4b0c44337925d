"""StopOnSignal and StopAfterTime."""

import signal
import threading
import time

import keras
import numpy as np
import pytest

from gradloop import engine, signals
from gradloop.engine import hooks
from gradloop.engine.hooks import StopKind
from tests.engine.hooks.runs import make_info

NUMBERS = (signal.SIGINT, signal.SIGTERM)


def handlers():
    return [signal.getsignal(number) for number in NUMBERS]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_asks_to_stop_and_the_handlers_come_back(number):
    before = handlers()
    info, hook = make_info(), hooks.StopOnSignal()
    hook.on_train_begin(info)
    signal.raise_signal(number)
    assert info.stop_reason == "interrupted" and info.stops_now
    assert info.stop_kind is StopKind.INTERRUPTED
    hook.on_train_end(info)
    assert handlers() == before


def test_where_they_are_caught_already_it_only_listens():
    with signals.caught():
        before = handlers()
        info, hook = make_info(), hooks.StopOnSignal()
        hook.on_train_begin(info)
        assert handlers() == before
        hook.on_train_end(info)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert info.stop_kind is None


def test_what_came_before_the_run_stops_it_at_its_beginning():
    with signals.caught(), signals.listening(signals.note):
        signal.raise_signal(signal.SIGTERM)
        info, hook = make_info(), hooks.StopOnSignal()
        hook.on_train_begin(info)
        assert info.stops_now
        hook.on_train_end(info)


def test_in_another_thread_it_is_an_error_with_the_fix():
    errors = []

    def begin():
        try:
            hooks.StopOnSignal().on_train_begin(make_info())
        except ValueError as error:
            errors.append(str(error))

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    assert len(errors) == 1 and "leave StopOnSignal out of the hooks" in errors[0]


class Strike(hooks.Hook):
    """Has a signal come after so many executions of an evaluation."""

    def __init__(self, after):
        self.after = after
        self.num_executions = 0

    def on_eval_execution_end(self, info):
        self.num_executions += 1

    def around_eval_execution(self, step):
        if self.num_executions == self.after:
            signal.raise_signal(signal.SIGTERM)
        return super().around_eval_execution(step)


def make_state():
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(1)])
    return engine.TrainState(model, "sgd", loss="mse")


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(64, 4)).astype("float32"), rng.normal(size=(64, 1)).astype("float32")


def test_an_evaluation_ends_early_and_leaves_no_handler_also_after_an_error(data):
    before = handlers()
    config = engine.TrainConfig(global_batch_size=8, steps_per_execution=1)
    strike = Strike(after=3)
    x, y = data
    engine.evaluate(make_state(), x, config, y=y, hooks=[hooks.StopOnSignal(), strike])
    assert strike.num_executions == 4  # of 8
    assert handlers() == before

    def fail(info):
        raise ZeroDivisionError

    failing = engine.LambdaHook(on_eval_execution_end=fail)
    with pytest.raises(ZeroDivisionError):
        engine.evaluate(make_state(), x, config, y=y, hooks=[hooks.StopOnSignal(), failing])
    assert handlers() == before


@pytest.mark.parametrize(("secs", "started_secs_ago"), [(0.2, 0.0), (100.0, 99.8)])
def test_a_time_limit_stops_the_run_to_be_resumed(secs, started_secs_ago):
    started_at = time.monotonic()
    hook = hooks.StopAfterTime(secs, started_at=started_at - started_secs_ago)
    info = make_info()
    hook.on_train_begin(info)
    assert not info.stops_now
    while not info.stops_now:
        assert time.monotonic() - started_at < 5
    assert time.monotonic() - started_at >= 0.19
    assert info.stop_kind is StopKind.TIME_LIMIT
    assert info.stop_reason == f"the time limit of {secs:g} s"
    hook.on_train_end(info)


def test_a_run_that_ends_before_its_time_limit_is_not_stopped_later():
    info, hook = make_info(), hooks.StopAfterTime(0.1)
    hook.on_train_begin(info)
    hook.on_train_end(info)
    time.sleep(0.2)
    assert info.stop_kind is None


@pytest.mark.parametrize("secs", [0, -1, True, "2h", float("nan")])
def test_a_time_limit_is_a_number_above_0(secs):
    with pytest.raises(ValueError, match="must be a number above 0"):
        hooks.StopAfterTime(secs)
