"""Two workers of one replica each have the bits of one process with two, whatever one of them does.

Both workers and the process under mirrored run `checks_of_fit` once; each test looks at one check.
"""

from __future__ import annotations

import pytest

from tests.engine.distribution import clusters

pytestmark = pytest.mark.multi_worker


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the first worker, the second one, and mirrored found."""
    folder = tmp_path_factory.mktemp("fit")
    return clusters.run(
        f"{__package__}.checks_of_fit", folder, [*clusters.tf_configs(2), clusters.ALONE]
    )


def alike(found, check):
    """Returns the result of a check, after making sure that it is one."""
    results = [one[check] for one in found]
    own = [one.pop("own") if "own" in one else None for one in results]
    assert results[0] == results[1] == results[2]
    return results[0], own


def test_sizes_of_executions_are_the_chiefs_though_clocks_differ(found):
    shared, own = alike(found, "clocks_differ")
    assert shared["num_steps"] == 32
    assert own[0]["sizes"] == own[1]["sizes"]
    assert max(own[0]["sizes"]) > 1


def test_a_stop_that_one_worker_requests_ends_all(found):
    shared, own = alike(found, "one_stops")
    requested, interrupted = shared["runs"]
    assert (requested["num_steps"], requested["stop"]) == (6, ["requested", None])
    assert len(requested["history"]["loss"]) == 1
    assert (interrupted["num_steps"], interrupted["stop"]) == (6, ["interrupted", 15])
    assert interrupted["history"] == {}
    assert own[1]["reasons"] == ["I have seen enough", "interrupted"]
    assert own[0]["reasons"] == ["worker 1: I have seen enough", "worker 1: interrupted"]


def test_an_overflow_on_one_worker_is_skipped_by_all(found):
    shared, _ = alike(found, "one_overflows")
    assert shared["history"]["num_skipped_steps"] == [1.0]
    assert shared["history"]["loss_scale"] == [4.0]
    assert all(loss == loss for loss in shared["history"]["loss"])  # no NaN


def test_predictions_of_all_examples_come_in_order_on_each_worker(found):
    (whole, *_), (shorter, *_) = alike(found, "predictions")[0]
    assert whole == {
        "hidden": ["float32", [76, 3]], "is_positive": ["bool", [76, 3]],
        "half": ["bfloat16", [76, 3]],
    }  # fmt: skip
    assert shorter["hidden"] == ["float32", [73, 3]]


def test_batches_that_do_not_divide(found):
    shared, _ = alike(found, "uneven_batches")
    assert shared["num_steps"] == 12
    assert all(0 < loss < 10 for loss in shared["history"]["loss"])


def test_a_function_of_the_input_context_gives_each_worker_its_data(found):
    shared, _ = alike(found, "from_files")
    assert shared["num_steps"] == 16
    assert len(shared["history"]["val_loss"]) == 2


def test_early_stopping_and_validation_with_a_partial_batch(found):
    shared, _ = alike(found, "early_stopping")
    assert shared["stop"][0] == "requested"
    assert len(shared["history"]["val_loss"]) == 2
    assert shared["evaluated"]["loss"] == pytest.approx(shared["history"]["val_loss"][0])


def test_a_last_batch_that_leaves_a_worker_without_examples(found):
    shared, _ = alike(found, "uneven")
    assert shared["num_steps"] == 6
    assert all(0 < loss < 10 for loss in shared["history"]["loss"])  # and not NaN


def test_what_a_step_logs_itself_is_the_mean_over_all_workers(found):
    shared, _ = alike(found, "last_logs")
    assert len(shared["history"]["mine"]) == 3
    assert shared["rate"] < 0.01  # the callback has done the same on each worker
