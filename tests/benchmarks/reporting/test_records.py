"""Records of results made up by hand."""

import dataclasses
import json

import pytest

from benchmarks import RESULTS, ROOT
from benchmarks.race.harness import Plan
from benchmarks.reporting import records
from tests.benchmarks.reporting import made_up
from tests.benchmarks.reporting.made_up import CIRCUMSTANCES, TASK, outcome


@pytest.fixture
def results():
    return made_up.results()


def make(results, accuracies=None):
    return records.make_record(
        TASK, Plan(num_repeats=3), outcome(results), accuracies or {}, CIRCUMSTANCES
    )


def test_speeds_by_hand(results):
    arm = make(results)["arms"]["engine"]
    # 28,800 images and 900 steps in 0.6 s.
    assert arm["images_per_sec"]["median"] == pytest.approx(48_000)
    assert arm["usecs_per_step"]["median"] == pytest.approx(1e6 * 0.6 / 900)
    # 100,000 operations in 667 us over 1e9 a second.
    assert arm["share_of_roof"] == pytest.approx(0.15)
    assert arm["startup_secs"] == pytest.approx(1.5 + 3.0 - 0.6)
    # The warm-up does not count: 12 J for 28,800 images.
    assert arm["joules_per_image"] == pytest.approx(12 / 28_800)
    assert make(results)["arms"]["keras_fit"]["joules_per_image"] is None


def test_time_to_accuracy_is_set_up_and_runs(results):
    accuracies = dict(zip(results[0].weights, [0.9, 0.96, 0.97, 0.98], strict=True))
    accuracies |= dict.fromkeys(results[1].weights, 0.995)
    arms = make(results, accuracies)["arms"]
    assert arms["engine"]["test_accuracies"] == [0.9, 0.96, 0.97, 0.98]
    assert arms["engine"]["secs_to_accuracy"] == {"0.97": 1.5 + 3.0 + 0.5 + 0.75, "0.99": None}
    assert arms["keras_fit"]["secs_to_accuracy"] == {"0.97": 4.5, "0.99": 4.5}


def test_time_to_accuracy_is_not_guessed_where_runs_were_not_looked_at(results):
    result = results[0]
    result.kept_runs = [0, 1, 3]
    assert records.secs_to_accuracy(result, [0.9, 0.97, 0.99], 0.97) == 1.5 + 3.0 + 0.5
    assert records.secs_to_accuracy(result, [0.9, 0.95, 0.99], 0.97) is None


def test_a_lower_precision_has_its_own_roof(results):
    task = dataclasses.replace(TASK, precision="mixed_bfloat16")
    record = records.make_record(task, Plan(), outcome(results), {}, CIRCUMSTANCES)
    assert record["arms"]["engine"]["share_of_roof"] == pytest.approx(0.075)
    task = dataclasses.replace(TASK, precision="mixed_float16")
    record = records.make_record(task, Plan(), outcome(results), {}, CIRCUMSTANCES)
    assert record["arms"]["engine"]["share_of_roof"] is None


def test_void_and_missing_arms_have_no_speed_and_no_ratio(results):
    record = make(results)
    assert [(r["arm"], r["over"]) for r in record["ratios"]] == [("engine", "keras_fit")]
    assert record["ratios"][0]["median"] == pytest.approx(5)
    assert record["ratios"][0]["verdict"] == "too wide"  # 4 to 6
    assert "images_per_sec" not in record["arms"]["tf_loop"]
    assert record["arms"]["tf_loop"]["reason"] == "a planted fault"
    assert record["arms"]["jax_scan"]["status"] == "not_installed"


def test_a_record_is_json_with_raw_samples(results, tmp_path):
    record = make(results)
    records.write(record, tmp_path / "new" / "tiny.json")
    read = json.loads((tmp_path / "new" / "tiny.json").read_text("utf-8"))
    assert read == json.loads(json.dumps(record))
    assert read["arms"]["engine"]["secs"] == [0.5, 0.75, 0.6]
    assert read["workload_config"]["units"] == 32
    assert "directory" not in read["task"]


def test_the_fingerprint_is_of_what_speed_depends_on(results):
    other = dataclasses.replace(TASK, seed=1)
    prints = [
        records.make_record(task, Plan(), outcome(results), {}, CIRCUMSTANCES)["fingerprint"]
        for task in (TASK, TASK, other)
    ]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"jit_compile": None}, "tiny_cpu2"),
        (
            {"jit_compile": None, "precision": "mixed_bfloat16"},
            "tiny-bf16_cpu2",
        ),
        ({"jit_compile": True, "num_devices": 2}, "tiny-xla-x2_cpu2"),
    ],
)
def test_the_files_name_says_what_is_not_default(values, name):
    task = dataclasses.replace(TASK, **values)
    record = records.make_record(task, Plan(), outcome([]), {}, CIRCUMSTANCES)
    assert records.default_path(record) == ROOT / RESULTS / f"{name}_2026-11-22T2215.json"
