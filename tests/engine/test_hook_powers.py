"""The powers that hooks have over the loop, and how a hook says that it uses one."""

import contextlib

import pytest

from gradloop.engine.hooks import Hook, LambdaHook
from gradloop.engine.hooks.base import HOOK_METHODS
from gradloop.engine.loop import fit
from tests.engine.nets import make_config, make_tiny
from tests.engine.observers import Every, Recorder

POWERS = ("max_steps", "around_execution")


def test_a_hook_of_its_own_has_no_method_and_no_limit():
    hook = Hook()
    assert not any(hook.overrides(method) for method in (*HOOK_METHODS, *POWERS))
    assert hook.every_steps is None
    assert hook.max_steps(3) is None
    with hook.around_execution(3):
        pass


@pytest.mark.parametrize(
    ("every_steps", "num_steps_completed", "expected"),
    [(5, 0, 5), (5, 3, 2), (5, 4, 1), (5, 5, 5), (1, 7, 1), (100, 250, 50)],
)
def test_a_period_leaves_the_steps_until_its_next_multiple(
    every_steps, num_steps_completed, expected
):
    assert Every(every_steps).max_steps(num_steps_completed) == expected


def test_a_period_may_be_an_attribute_of_the_class(dataset):
    class EveryThird(Every):
        every_steps = 3

        def __init__(self):
            self.ends = []

    hook = EveryThird()
    fit(make_tiny(), dataset, make_config(steps_per_execution=32), hooks=[hook])
    assert hook.ends == [3, 6, 7]


class WithOne(Hook):
    def on_epoch_end(self, info):
        """Overridden, though it does nothing either."""


class Inherits(WithOne):
    pass


class Limits(Hook):
    def max_steps(self, num_steps_completed):
        return 1

    def around_execution(self, num_steps_completed):
        return contextlib.nullcontext()


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        (WithOne(), {"on_epoch_end"}),
        (Inherits(), {"on_epoch_end"}),
        (LambdaHook(on_train_end=print), {"on_train_end"}),
        (LambdaHook(), set()),
        (Every(4), {"on_execution_end"}),  # a period overrides no method
        (Recorder([]), set(HOOK_METHODS)),
        (Limits(), set(POWERS)),
    ],
    ids=["own", "inherited", "lambda", "no lambda", "period", "on the instance", "powers"],
)
def test_a_hook_overrides_what_it_or_its_class_defines(hook, expected):
    found = {method for method in (*HOOK_METHODS, *POWERS) if hook.overrides(method)}
    assert found == expected


def test_only_overridden_moments_are_timed(dataset):
    history = fit(make_tiny(), dataset, make_config(), hooks=[Limits(), Every(4)])
    parts = history.timing["parts"]
    assert "hooks/Every" in parts
    assert "hooks/Limits" not in parts
