"""StopOnNaN."""

import pytest

from gradloop.engine import hooks
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
