"""Records of results made up by hand."""

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks.race import screen
from benchmarks.race.harness import ArmResult, Plan
from benchmarks.race.workloads import WORKLOADS, Task
from benchmarks.reporting import records

TASK = Task(workload=WORKLOADS["tiny"], directory=Path("/nowhere"))
FOUND = records.Circumstances(
    hardware="cpu2",
    date="2026-11-22",
    command="python -m benchmarks.throughput",
    environment={"git_commit": "abc"},
    roof={"matmul_flops_per_sec": {"float32": 1e9, "bfloat16": 2e9}, "copy_bytes_per_sec": 1e9},
    flops_per_step=100_000,
)


def made_up(name, secs, **values):
    paths = [Path(f"{name}-{index}") for index in range(len(secs) + 1)]
    defaults = {
        "claims_bits": True,
        "setup_secs": 1.5,
        "import_secs": 4.0,
        "peak_memory_bytes": 2**20,
        "warmup_secs": [3.0],
        "secs": secs,
        "losses": [0.5] * len(paths),
        "joules": [None] * len(paths),
        "weights": paths,
    }
    return ArmResult(name, **(defaults | values))


@pytest.fixture
def results():
    void = made_up("tf_loop", [1.0, 1.0, 1.0])
    void.fail("void", "a planted fault")
    missing = ArmResult("jax_scan", status="not_installed", reason="No module named 'jax'")
    return [
        made_up("engine", [0.5, 0.75, 0.6], joules=[100.0, 6.0, 12.0, 18.0]),
        made_up("keras_fit", [3.0, 3.0, 3.0]),
        void,
        missing,
    ]


def make(results, accuracies=None):
    return records.make_record(TASK, Plan(num_repeats=3), results, accuracies or {}, FOUND)


def test_speeds_by_hand(results):
    arm = make(results)["arms"]["engine"]
    # 60,000 images and 1,875 steps in 0.6 s.
    assert arm["images_per_sec"]["median"] == pytest.approx(100_000)
    assert arm["usecs_per_step"]["median"] == pytest.approx(320)
    # 100,000 operations in 320 us over 1e9 a second.
    assert arm["share_of_roof"] == pytest.approx(0.3125)
    assert arm["startup_secs"] == pytest.approx(1.5 + 3.0 - 0.6)
    # The warm-up does not count: 12 J for 60,000 images.
    assert arm["joules_per_image"] == pytest.approx(12 / 60_000)
    assert make(results)["arms"]["keras_fit"]["joules_per_image"] is None


def test_time_to_accuracy_is_set_up_and_runs(results):
    accuracies = dict(zip(results[0].weights, [0.9, 0.96, 0.97, 0.98], strict=True))
    accuracies |= dict.fromkeys(results[1].weights, 0.995)
    arms = make(results, accuracies)["arms"]
    assert arms["engine"]["test_accuracies"] == [0.9, 0.96, 0.97, 0.98]
    assert arms["engine"]["secs_to_accuracy"] == {"0.97": 1.5 + 3.0 + 0.5 + 0.75, "0.99": None}
    assert arms["keras_fit"]["secs_to_accuracy"] == {"0.97": 4.5, "0.99": 4.5}


def test_a_lower_precision_has_its_own_roof(results):
    task = dataclasses.replace(TASK, precision="mixed_bfloat16")
    record = records.make_record(task, Plan(), results, {}, FOUND)
    assert record["arms"]["engine"]["share_of_roof"] == pytest.approx(0.15625)
    task = dataclasses.replace(TASK, precision="mixed_float16")
    record = records.make_record(task, Plan(), results, {}, FOUND)
    assert record["arms"]["engine"]["share_of_roof"] is None


def test_void_and_missing_arms_have_no_speed_and_no_ratio(results):
    record = make(results)
    assert [(r["arm"], r["over"]) for r in record["ratios"]] == [("engine", "keras_fit")]
    assert record["ratios"][0]["median"] == pytest.approx(5)
    assert record["ratios"][0]["verdict"] == "faster"
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
        records.make_record(task, Plan(), results, {}, FOUND)["fingerprint"]
        for task in (TASK, TASK, other)
    ]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"jit_compile": None}, "tiny_cpu2_2026-11-22.json"),
        ({"jit_compile": None, "precision": "mixed_bfloat16"}, "tiny-bf16_cpu2_2026-11-22.json"),
        ({"jit_compile": True, "num_devices": 2}, "tiny-xla-x2_cpu2_2026-11-22.json"),
    ],
)
def test_the_files_name_says_what_is_not_default(values, name):
    task = dataclasses.replace(TASK, **values)
    assert records.default_path(task, "cpu2", "2026-11-22").name == name


def test_the_table_shows_no_speed_of_a_void_arm(results):
    text = screen.to_text(make(results))
    rows = [line.split() for line in text.splitlines()]
    assert ["engine", "100,000"] in [row[:2] for row in rows]
    assert ["engine", "over", "keras_fit", "5.00", "(4.00"] in [row[:5] for row in rows]
    assert "tf_loop: void: a planted fault" in text
    assert "jax_scan: not installed: No module named 'jax'" in text
    assert "60,000" not in text  # the void arm's speed
