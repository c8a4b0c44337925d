"""Targets are compared with records: reached, missed by how much, or why not measured."""

import pytest

from benchmarks.reporting import targets
from benchmarks.reporting.targets import BEST_PYTORCH, Target
from tests.benchmarks.reporting.made_up import arm, ratio, record


def evaluate(target, *records):
    return targets.evaluate(target, {targets.name_of(r): r for r in records})


def over_fit(wanted, **values):
    return Target("cnn", "engine", "keras_fit", wanted, **values)


def test_the_record_s_own_ratio_and_interval_count():
    made = record({"engine": arm(100.0), "keras_fit": arm(50.0)}, ratios=[
        ratio("engine", "keras_fit", 1.5, 1.4, 1.6)])  # fmt: skip
    outcome = evaluate(over_fit(1.1), made)
    assert (outcome.measured, outcome.interval) == (1.5, (1.4, 1.6))
    assert outcome.verdict == "reached"


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [(2.0, "reached"), (2.5, "reached"), (1.9, "missed by 5.0 %"), (1.9999, "missed by 0.1 %")],
)
def test_missed_by_the_share_of_the_target(measured, verdict):
    arms = {"engine": arm(100.0), "keras_fit": arm(100.0 / measured)}
    assert evaluate(over_fit(2.0), record(arms)).verdict == verdict


def test_less_is_better_for_memory_and_start():
    arms = {
        "engine": arm(1.0, peak_memory_bytes=110, startup_secs=3.0),
        "keras_fit": arm(1.0, peak_memory_bytes=100, startup_secs=4.0),
    }
    memory = evaluate(over_fit(1.0, measure="peak_memory_bytes"), record(arms))
    start = evaluate(over_fit(1.0, measure="startup_secs"), record(arms))
    assert (memory.measured, memory.verdict) == (1.1, "missed by 10.0 %")
    assert (start.measured, start.verdict) == (0.75, "reached")


def test_the_fastest_pytorch_arm_that_did_its_work_counts():
    arms = {
        "engine": arm(140.0),
        "torch_eager": arm(70.0),
        "torch_compile": arm(100.0),
        "lightning": arm(999.0, status="void", reason="loss 3 % off"),
    }
    outcome = evaluate(Target("cnn", "engine", BEST_PYTORCH, 1.4), record(arms))
    assert (outcome.over, outcome.measured) == ("torch_compile", pytest.approx(1.4))


@pytest.mark.parametrize(
    ("arms", "reason"),
    [
        ({"engine": arm(1.0)}, "keras_fit was not in the run"),
        ({"engine": arm(1.0), "keras_fit": arm(1.0, status="void")}, "keras_fit is void"),
        ({"engine": arm(1.0, status="failed"), "keras_fit": arm(1.0)}, "engine is failed"),
    ],
)
def test_says_why_nothing_was_measured(arms, reason):
    outcome = evaluate(over_fit(1.1), record(arms))
    assert outcome.measured is None
    assert outcome.verdict == f"not measured: {reason}"


def test_without_a_record_nothing_was_measured():
    assert evaluate(over_fit(1.1)).verdict == "not measured"
    assert evaluate(Target("cnn", "engine", BEST_PYTORCH, 1.4)).measured is None


def test_bfloat16_is_held_against_fit_in_float32():
    float32 = record({"keras_fit": arm(100.0)})
    half = record({"engine": arm(190.0), "keras_fit": arm(150.0)}, precision="mixed_bfloat16")
    target = next(t for t in targets.SPEED if t.over == targets.FIT_FLOAT32)
    outcome = evaluate(target, float32, half)
    assert (outcome.measured, outcome.interval) == (1.9, None)
    assert outcome.verdict == "reached"
    half["arms"][targets.FIT_FLOAT32] = arm(95.0)  # in the same run: that counts
    outcome = evaluate(target, float32, half)
    assert outcome.measured == 2.0
    assert outcome.interval is not None


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ({}, "cnn"),
        ({"precision": "mixed_bfloat16"}, "cnn-bf16"),
        ({"jit_compile": False}, "cnn-noxla"),
        ({"precision": "tf32", "jit_compile": True, "num_devices": 2}, "cnn-tf32-xla-x2"),
    ],
)
def test_what_is_pinned_is_in_the_name(task, name):
    made = record({})
    made["task"] |= task
    assert targets.name_of(made) == name


def test_a_run_of_input_alone_counts_for_the_input():
    target = next(t for t in targets.INPUT if t.workload == "cnn")
    whole = record({"engine": arm(90.0), "engine_resident": arm(100.0)})
    assert evaluate(target, whole).measured == pytest.approx(0.9)
    alone = record({"engine": arm(99.0), "engine_resident": arm(100.0)}, workload="input-cnn")
    assert evaluate(target, whole, alone).measured == pytest.approx(0.99)


def test_the_issue_s_table():
    wanted = {(t.workload, t.arm, t.over): t.ratio for t in targets.SPEED}
    assert len(wanted) == len(targets.SPEED) == 29
    assert wanted["tiny", "engine_fast", "keras_fit"] == 9
    assert wanted["dense", "engine", "jax_scan"] == 0.85
    assert wanted["lstm", "engine_fast", BEST_PYTORCH] == 1.5
