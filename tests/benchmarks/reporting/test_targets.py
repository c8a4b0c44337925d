"""Targets are compared with races: reached, missed by how much, or why there is no ratio."""

import pytest

from benchmarks.reporting import targets
from benchmarks.reporting.races import BEST_PYTORCH
from benchmarks.reporting.targets import Target
from tests.benchmarks.reporting.made_up import arm, races_of, ratio, record


def evaluate(target, *records):
    return targets.evaluate(target, races_of(*records))


def over_fit(wanted, **values):
    return Target("cnn", "engine", "keras_fit", wanted, **values)


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [(2.0, "reached"), (2.5, "reached"), (1.9, "missed by 5.0 %"), (1.9999, "missed by 0.1 %")],
)
def test_missed_by_the_share_of_the_target(measured, verdict):
    arms = {"engine": arm(100.0), "keras_fit": arm(50.0)}
    made = record(arms, ratios=[ratio("engine", "keras_fit", measured)])
    outcome = evaluate(over_fit(2.0), made)
    assert (outcome.found.median, outcome.verdict) == (measured, verdict)
    assert outcome.is_missed == (verdict != "reached")


def test_less_is_better_for_memory_and_start():
    arms = {
        "engine": arm(1.0, peak_memory_bytes=110, startup_secs=3.0),
        "keras_fit": arm(1.0, peak_memory_bytes=100, startup_secs=4.0),
    }
    memory = evaluate(over_fit(1.0, measure="peak_memory_bytes"), record(arms))
    start = evaluate(over_fit(1.0, measure="startup_secs"), record(arms))
    assert (memory.found.median, memory.verdict) == (1.1, "missed by 10.0 %")
    assert (start.found.median, start.verdict) == (0.75, "reached")


def test_what_has_no_ratio_is_not_missed():
    for made in ([], [record({"engine": arm(1.0)})]):
        outcome = evaluate(over_fit(1.1), *made)
        assert outcome.verdict.startswith("not measured")
        assert not outcome.is_missed


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((1.2, 1.9), "reached by all of the interval"),
        ((0.5, 1.04), "missed by all of the interval"),
        ((0.9, 1.9), "no ratio: interval wider than 20 %"),
    ],
)
def test_an_interval_without_a_ratio_may_decide(interval, verdict):
    arms = {"engine": arm(100.0), "keras_fit": arm(100.0)}
    made = record(arms, ratios=[ratio("engine", "keras_fit", 1.0, *interval, "too wide")])
    outcome = evaluate(over_fit(1.05), made)
    assert outcome.verdict == verdict and outcome.found.median is None
    assert outcome.is_missed == verdict.startswith("missed")


def test_a_run_of_input_alone_counts_for_the_input():
    target = next(t for t in targets.INPUT if t.workload == "cnn")
    arms = {"engine": arm(1.0), "engine_resident": arm(1.0)}
    whole = record(arms, ratios=[ratio("engine", "engine_resident", 0.9)])
    assert evaluate(target, whole).found.median == 0.9
    ratios = [ratio("engine", "engine_resident", 0.99)]
    alone = record(arms, ratios=ratios, workload="input-cnn")
    assert evaluate(target, whole, alone).found.median == 0.99


def test_predict_and_evaluate_are_held_against_keras_s():
    found = {"ratio": {"median": 2.5, "low": 2.4, "high": 2.6}}
    made = record({}, workload="inference-dense", inference={"predict": found, "evaluate": found})
    assert evaluate(targets.PREDICT[0], made).verdict == "reached"
    assert evaluate(targets.EVALUATE[0], made).verdict == "missed by 16.7 %"
    assert evaluate(targets.EVALUATE[1], made).verdict == "not measured"


def test_the_issue_s_table():
    wanted = {(t.workload, t.arm, t.over): t.ratio for t in targets.SPEED_TARGETS}
    assert len(wanted) == len(targets.SPEED_TARGETS)
    assert wanted["tiny", "engine_xla", "keras_fit_xla"] == 8
    assert wanted["dense", "engine_xla", "jax_scan"] == 1.05
    assert wanted["lstm", "engine_free", BEST_PYTORCH] == 1.0
    assert wanted["wide", "engine", "keras_fit_tuned"] == 1.3
    arms = {(workload, over) for workload, arm, over in wanted if arm == "engine_free"}
    assert {("dense", "tf_loop"), ("lstm", "tf_loop"), ("cnn-bf16", "tf_loop")} <= arms
