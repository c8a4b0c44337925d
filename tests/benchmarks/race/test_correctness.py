"""An arm with wrong numbers is void, and the reason is one line."""

import dataclasses

import pytest

from benchmarks.race import correctness


@pytest.fixture(autouse=True)
def fresh_keras():
    """Replaces conftest's: the arms here are NumPy's alone."""


def test_wrong_weights_are_void(race):
    result = race("good", "wrong_weights")["wrong_weights"]
    assert result.status == "void"
    assert result.reason == (
        "other bits than good: after run 1, weight 0 of shape (2, 3) differs by up to 9.5e-07"
    )


def test_a_wrong_loss_is_void(race):
    result = race("good", "wrong_loss")["wrong_loss"]
    assert result.status == "void"
    assert result.reason == "mean loss 0.515, more than 2 % from the 0.5 of good"


def test_a_near_loss_and_other_bits_pass_an_arm_whose_bits_are_free(race):
    assert race("good", "near_loss")["near_loss"].is_ok


def test_nothing_trained_is_void(race):
    result = race("good", "idle")["idle"]
    assert (result.status, result.reason.split(":")[0]) == ("void", "nothing was trained")


def test_without_fit_nothing_is_correct(race):
    result = race("near_loss", "crashing")["near_loss"]
    assert (result.status, result.reason.split(":")[0]) == ("void", "nothing to compare with")


def test_only_the_last_weights_are_compared_where_no_others_are_read(race):
    result = race("good", num_kept=0)["good"]
    assert (len(result.weights), result.kept_runs) == (1, [2])
    assert result.is_ok


def test_arms_of_xla_are_compared_with_fit_of_xla(race):
    results = race("good", "xla_reference", "of_xla", "not_of_xla")
    assert results["xla_reference"].is_ok  # other bits than good, and a near loss
    assert results["of_xla"].is_ok
    assert results["not_of_xla"].reason.startswith("other bits than xla_reference: after run 1")


def test_bits_of_an_arm_without_a_result_cannot_be_shown(race):
    result = race("good", "of_xla")["of_xla"]
    assert result.reason == "nothing to compare with: xla_reference gave no result"


def test_losses_are_compared_without_dropout_where_a_workload_has_it(race, task):
    workload = dataclasses.replace(task.workload, has_dropout=True)
    dropping = dataclasses.replace(task, workload=workload)
    results = race("good", "drops", "drops_wrong", "drops_another_share", task=dropping)
    # With dropout, the losses are 4 % apart.
    assert results["drops"].is_ok
    assert results["drops_another_share"].reason == (
        "first loss with dropout 0.6, more than 10 % from the 0.5 of good"
    )
    assert results["drops_wrong"].reason == (
        "mean loss without dropout 0.6, more than 2 % from the 0.5 of good"
    )
    assert race("good", "drops")["drops"].status == "void"


def test_what_an_arm_found_is_not_looked_for_again(race, task):
    workload = dataclasses.replace(task.workload, has_dropout=True)
    result = race("good", "finds", task=dataclasses.replace(task, workload=workload))["finds"]
    assert (result.status, result.plain_loss) == ("ok", 0.5)


@pytest.mark.parametrize(("precision", "share"), [("float32", 0.02), ("mixed_bfloat16", 0.05)])
def test_a_lower_precision_has_a_wider_tolerance(precision, share):
    assert correctness.tolerance_of(precision) == share
