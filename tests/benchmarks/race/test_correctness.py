"""An arm with wrong numbers is void, and the reason is one line."""

import pytest


@pytest.fixture(autouse=True)
def fresh_keras():
    """Replaces conftest's: the arms here are NumPy's alone."""


def test_wrong_weights_are_void(race):
    result = race("good", "wrong_weights")["wrong_weights"]
    assert result.status == "void"
    assert result.reason == (
        "other bits than fit: after run 1, weight 0 of shape (2, 3) differs by up to 9.5e-07"
    )


def test_a_wrong_loss_is_void(race):
    result = race("good", "wrong_loss")["wrong_loss"]
    assert result.status == "void"
    assert result.reason == "mean loss 0.515, more than 2 % from fit's 0.5"


def test_a_near_loss_and_other_bits_pass_an_arm_that_claims_none(race):
    assert race("good", "near_loss")["near_loss"].is_ok


def test_nothing_trained_is_void(race):
    result = race("good", "idle")["idle"]
    assert (result.status, result.reason.split(":")[0]) == ("void", "nothing was trained")


def test_without_fit_nothing_is_correct(race):
    result = race("near_loss", "crashing")["near_loss"]
    assert (result.status, result.reason.split(":")[0]) == ("void", "nothing to compare with")


def test_only_the_last_weights_are_compared_where_no_others_are_read(race):
    result = race("good", keeps_all_weights=False)["good"]
    assert len(result.weights) == 1
    assert result.is_ok
