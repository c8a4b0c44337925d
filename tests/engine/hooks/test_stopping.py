"""StopOnNaN and StopOnSignal."""

import signal

import pytest

from gradloop.engine import hooks
from gradloop.engine.hooks import StopKind
from tests.engine.hooks.runs import make_info


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_stop_on_nan_names_loss_and_step(value):
    info = make_info(logs={"accuracy": 0.5, "generator_loss": value}, logs_step=7)
    hooks.StopOnNaN().on_execution_end(info)
    assert info.stop_reason == f"divergence: generator_loss is {value} at step 7"


def test_stop_on_nan_looks_at_training_losses_only():
    info = make_info(logs={"loss": 1.0, "val_loss": float("nan"), "auc": float("nan")})
    hooks.StopOnNaN().on_execution_end(info)
    hooks.StopOnNaN().on_epoch_end(info)
    assert info.stop_reason is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_to_stop_once_and_the_handlers_come_back(number):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    info, hook = make_info(), hooks.StopOnSignal()
    hook.on_train_begin(info)
    signal.raise_signal(number)
    assert info.stop_reason == "interrupted" and info.stops_now
    assert info.stop_kind is StopKind.INTERRUPTED
    # The next one is not caught: a run that hangs can be ended.
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    hook.on_train_end(info)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
