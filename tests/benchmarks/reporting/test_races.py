"""Records of one comparison are runs of one race, whose ratios count together."""

import pytest

from benchmarks.reporting import races, tables
from benchmarks.reporting.races import BEST_FIT, BEST_PYTORCH
from tests.benchmarks.reporting.made_up import arm, races_of, ratio, record

ARMS = {"engine": arm(100.0), "keras_fit": arm(50.0)}


def run(median, when, **values):
    date, _, time = when.partition("T")
    low, high = values.pop("interval", (None, None))
    verdict = values.pop("verdict", "faster")
    found = [ratio("engine", "keras_fit", median, low, high, verdict)]
    return record(values.pop("arms", ARMS), ratios=found, date=date, time=time, **values)


def over_fit(*records):
    return races.ratio(races_of(*records)["cnn"], "engine", "keras_fit")


def test_a_ratio_is_the_median_of_the_runs_medians_beside_their_range():
    found = over_fit(
        run(2.0, "2026-11-28T0900"),
        run(2.6, "2026-11-29T1430", interval=(2.5, 2.7)),
        run(2.4, "2026-11-28T2100"),
    )
    assert (found.median, found.range, found.num_runs) == (2.4, (2.0, 2.6), 3)
    assert found.interval == (2.5, 2.7)  # of the newest


def test_an_interval_that_is_too_wide_gives_no_ratio():
    wide = run(9.0, "2026-11-29T1000", interval=(5.0, 20.0), verdict="too wide")
    assert over_fit(wide).median is None
    assert over_fit(wide).why == "no ratio: interval wider than 20 %"
    assert over_fit(wide, wide).spread is None


def test_beside_a_run_with_a_narrow_interval_all_count():
    wide = run(9.0, "2026-11-29T1000", interval=(5.0, 20.0), verdict="too wide")
    found = over_fit(run(2.0, "2026-11-28T1000"), wide, run(2.2, "2026-11-28T1100"))
    assert (found.median, found.range, found.num_runs) == (2.2, (2.0, 9.0), 3)
    assert (found.interval, found.why) == ((5.0, 20.0), "")


def test_arms_of_two_precisions_have_a_ratio_only_over_fit():
    free = arm(100.0) | {"settings": {"precision": "mixed_bfloat16"}}
    arms = {"engine_free": free, "keras_fit": arm(50.0), "tf_loop": arm(80.0)}
    pairs = [ratio("engine_free", "keras_fit", 2.0), ratio("tf_loop", "engine_free", 0.8)]
    raced = races_of(record(arms, ratios=pairs))["cnn"]
    assert races.ratio(raced, "engine_free", "keras_fit").median == 2.0
    found = races.ratio(raced, "engine_free", "tf_loop")
    assert (found.median, found.why) == (None, "not measured: mixed_bfloat16 beside float32")
    equal = record(arms, ratios=pairs, precision="mixed_bfloat16")
    raced = races_of(equal)["cnn-bf16"]
    assert races.ratio(raced, "engine_free", "tf_loop").median == 1.25


def test_an_interval_of_an_earlier_run_stands_where_the_newest_left_the_arms_out():
    wide = run(9.0, "2026-11-29T1000", interval=(5.0, 20.0), verdict="too wide")
    found = over_fit(wide, run(1.0, "2026-11-29T1100", arms={"tf_loop": arm(1.0)}))
    assert (found.median, found.interval) == (None, (5.0, 20.0))


def test_runs_on_another_processor_count_and_are_named():
    other = run(2.6, "2026-11-28T1000")
    other["environment"] |= {"processor": "Another CPU"}
    found = over_fit(other, run(2.0, "2026-11-28T1100"), run(2.2, "2026-11-28T1200"))
    assert (found.median, found.num_runs, found.num_processors) == (2.2, 3, 2)
    assert tables.runs_of(found) == "3 on 2 processors"


def test_runs_with_other_cores_or_versions_are_left_out():
    other = run(9.0, "2026-11-28T1000")
    other["environment"] |= {"num_cores": 64}
    old = run(9.0, "2026-11-28T1100")
    old["environment"] |= {"tensorflow": "2.20.0"}
    newest = run(2.0, "2026-11-28T1200")
    race = races_of(other, newest, old)["cnn"]
    assert race.runs == (newest,)
    assert race.others == (other, old)
    assert races.ratio(race, "engine", "keras_fit").median == 2.0


def test_a_run_that_left_arms_out_does_not_hide_those_of_a_fuller_one():
    full = run(2.0, "2026-11-28T1000", arms=ARMS | {"jax_scan": arm(150.0)})
    full["ratios"].append(ratio("jax_scan", "engine", 1.25, 1.2, 1.3))
    short = run(2.2, "2026-11-29T1000")
    race = races_of(full, short)["cnn"]
    assert (race.newest, race.fullest) == (short, full)
    found = races.ratio(race, "engine", "jax_scan")  # in the record the other way round
    assert (found.median, found.num_runs) == (0.8, 1)
    assert found.interval == pytest.approx((1 / 1.3, 1 / 1.2))


@pytest.mark.parametrize(
    ("group", "fastest"), [(BEST_PYTORCH, "torch_compile"), (BEST_FIT, "keras_fit_xla")]
)
def test_the_fastest_of_a_group_that_did_its_work_counts(group, fastest):
    arms = {
        "engine": arm(140.0),
        "keras_fit_tuned": arm(50.0),
        "keras_fit_xla": arm(60.0),
        "torch_eager": arm(70.0),
        "torch_compile": arm(100.0),
        "lightning": arm(999.0, status="void", reason="loss 3 % off"),
    }
    race = races_of(record(arms, ratios=[ratio("engine", fastest, 1.4)]))["cnn"]
    found = races.ratio(race, "engine", group)
    assert (found.over, found.median) == (fastest, 1.4)


@pytest.mark.parametrize(
    ("arms", "reason"),
    [
        ({"engine": arm(1.0)}, "keras_fit was not in the run"),
        ({"engine": arm(1.0), "keras_fit": arm(1.0, status="void")}, "keras_fit is void"),
        ({"engine": arm(1.0, status="failed"), "keras_fit": arm(1.0)}, "engine is failed"),
    ],
)
def test_says_why_nothing_was_measured(arms, reason):
    assert over_fit(record(arms)).why == f"not measured: {reason}"


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
    assert races.name_of(made) == name
