"""What counts as equal, on trainings that are made up."""

import numpy as np
import pytest

from benchmarks.replica_equivalence import __main__ as program
from benchmarks.replica_equivalence import counts, judgement
from benchmarks.replica_equivalence.counts import Count, Result

ONE, REVERSED = Count(1), Count(1, reverses=True)
NUM_STEPS, NUM_TERMS = 20, 64
BOUND = judgement.summation_bound(NUM_STEPS, NUM_TERMS)


@pytest.fixture(autouse=True)
def fresh_keras():
    """Replaces conftest's: nothing here runs Keras."""


def made_up(factor=1.0, *, bias=1.0, loss=2.0, accuracy=0.5):
    kernel = np.linspace(0.1, 1, 50, dtype=np.float32)
    weights = {"kernel": kernel * np.float32(factor), "bias": np.float32([bias, bias])}
    return Result(weights, {"loss": loss, "accuracy": accuracy})


def judge(more, reversed_result=None):
    results = {ONE: made_up(), REVERSED: reversed_result or made_up(1 + 1e-7)} | more
    return judgement.judge(results, BOUND, NUM_STEPS * NUM_TERMS)[2:]


@pytest.mark.parametrize(
    ("found", "is_equal", "where"),
    [
        (made_up(), True, "kernel"),
        (made_up(1 + BOUND / 2), True, "kernel"),
        (made_up(1 + 2 * BOUND), False, "kernel"),
        (made_up(bias=1.01), False, "bias"),
        (made_up(float("nan")), False, "kernel"),
        (made_up(loss=2.1), False, "kernel"),
        (made_up(loss=float("nan")), False, "kernel"),
        (made_up(accuracy=0.5 + 0.2 / (NUM_STEPS * NUM_TERMS)), True, "kernel"),
        (made_up(accuracy=0.51), False, "kernel"),
    ],
)
def test_weights_loss_and_metrics_within_what_float32_explains(found, is_equal, where):
    (row,) = judge({Count(2): found})
    assert (row.is_equal, row.where, row.bound) == (is_equal, where, BOUND)


def test_what_cancels_may_differ_ten_times_as_much_as_in_another_order():
    floor = made_up(bias=1 + 2 * BOUND)
    assert judge({Count(2): made_up(bias=1 + 15 * BOUND)}, floor)[0].is_equal
    assert not judge({Count(2): made_up(bias=1 + 25 * BOUND)}, floor)[0].is_equal
    assert not judge({Count(2): made_up(1 + 15 * BOUND)}, floor)[0].is_equal  # another tensor


def test_workers_have_the_bits_of_as_many_replicas():
    two = made_up(1 + BOUND / 2)
    workers = Count(2, by_workers=True)
    *_, row = judge({Count(2): two, workers: two})
    assert (row.is_equal, row.reference, row.difference, row.bound) == (True, Count(2), 0, 0)
    *_, row = judge({Count(2): two, workers: made_up(1 + BOUND / 3)})
    assert not row.is_equal
    *_, row = judge({Count(2): made_up(), workers: made_up(loss=2.0000002)})
    assert not row.is_equal
    (row,) = judge({workers: two})  # nobody trained on two replicas
    assert (row.is_equal, row.reference) == (True, ONE)


def test_a_tensor_of_zeros_is_equal_to_zeros_alone():
    assert judgement.relative([0, 0], [0, 0]) == 0
    assert judgement.relative([0, 1], [0, 0]) == float("inf")


def test_the_bound_is_that_of_two_orders_of_a_sum():
    """Of the worst order there is, ascending and descending, on float32 terms of one sign."""
    rng = np.random.default_rng(0)
    terms = np.sort(rng.uniform(0, 1, 4096).astype(np.float32))
    sums = [np.add.accumulate(order, dtype=np.float32)[-1] for order in (terms, terms[::-1])]
    assert 0 < judgement.relative(sums[0], sums[1]) <= judgement.summation_bound(1, len(terms))


def fake_runs(monkeypatch, found):
    monkeypatch.setattr(counts, "run", lambda count, task, max_secs: found.get(count, made_up()))


def test_the_program_prints_a_table_and_exits_with_0_only_if_all_is_equal(
    monkeypatch, tmp_path, capsys
):
    flags = ["--replicas", "1", "2", "--workers", "2", "--output", str(tmp_path / "found.json")]
    fake_runs(monkeypatch, {})
    assert program.main(flags) == 0
    table = capsys.readouterr().out
    assert (
        "| 2 workers | 2 | 0.5 | 2 replicas | equal bits | equal bits | kernel | equal |" in table
    )
    assert '"is_equal": true' in (tmp_path / "found.json").read_text()
    fake_runs(monkeypatch, {Count(2, by_workers=True): made_up(1.5)})
    assert program.main(flags) == 1
    out = capsys.readouterr().out
    assert (
        "| 2 workers | 2 | 0.5 | 2 replicas | 5.0e-01 | equal bits | kernel | **differs** |" in out
    )
    assert "NOT equal" in out


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--replicas", "0"], "--replicas 0: must be 1 or more"),
        (["--model", "desne"], "Did you mean 'dense'?"),
        (["--model", "no.such:build"], "No module named 'no'"),
        (["--replicas", "4", "--global_batch_size", "6"], "must be 8 or more"),
    ],
)
def test_wrong_usage_is_one_line(flags, part, capsys):
    assert program.main(flags) == 2
    error = capsys.readouterr().err
    assert part in error and error.count("\n") == 1
