"""The interface of hooks: reasons to stop, and LambdaHook."""

import pytest

from gradloop.engine import hooks
from gradloop.engine.hooks import StopKind
from tests.engine.hooks.runs import drive, make_info


def test_the_first_reason_to_stop_stands_but_a_divergence_outranks_it():
    info = make_info()
    assert info.stop_reason is None and not info.has_diverged
    info.request_stop("enough")
    info.request_stop("other")
    assert info.stop_reason == "enough" and not info.has_diverged
    info.request_stop("divergence: loss is nan at step 3", kind=StopKind.DIVERGED)
    info.request_stop("divergence: loss is nan at step 4", kind=StopKind.DIVERGED)
    assert info.stop_reason == "divergence: loss is nan at step 3" and info.has_diverged


def test_lambda_hook_calls_its_functions_and_nothing_else():
    calls = []
    hook = hooks.LambdaHook(
        on_epoch_end=lambda info: calls.append(info.logs["loss"]),
        on_train_end=lambda info: calls.append("end"),
    )
    drive(hook, make_info(), [{"loss": 2.0}, {"loss": 1.0}])
    assert calls == [2.0, 1.0, "end"]


def test_lambda_hook_refuses_an_unknown_name_and_a_value_that_cannot_be_called():
    with pytest.raises(
        ValueError, match=r"'on_epoch_ends'.*on_train_begin.*Did you mean 'on_epoch_e"
    ):
        hooks.LambdaHook(on_epoch_ends=print)
    with pytest.raises(ValueError, match="on_epoch_end must be a function of one argument, not 3"):
        hooks.LambdaHook(on_epoch_end=3)


def test_hook_methods_are_those_of_the_interface():
    methods = [name for name in vars(hooks.Hook) if name.startswith("on_")]
    assert sorted(methods) == sorted(hooks.base.HOOK_METHODS)
