"""The arithmetic of the GPU figures."""

import pytest

from benchmarks.hardware import utilization
from benchmarks.hardware.utilization import Cell

H100 = "NVIDIA H100 80GB HBM3"
PEAKS = {"float32": 50e12, "tf32": 400e12, "bfloat16": 800e12, "float16": 800e12}


@pytest.fixture(autouse=True)
def fresh_keras():
    """Replaces conftest's: nothing here runs Keras."""


def test_the_matrix_has_every_combination_once():
    cells = utilization.make_matrix(("float32", "mixed_bfloat16"), (64, 256))
    assert len(set(cells)) == len(cells) == 8
    assert {cell.jit_compile for cell in cells} == {True, False}
    assert all(cell.num_devices == 1 for cell in cells)


@pytest.mark.parametrize(
    ("num_gpus", "counts"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8])]
)
def test_each_gpu_gets_the_same_batch(num_gpus, counts):
    cells = utilization.make_scaling(num_gpus, "tf32", 64)
    assert [cell.num_devices for cell in cells] == counts
    assert [cell.global_batch_size for cell in cells] == [64 * count for count in counts]
    assert not any(cell.jit_compile for cell in cells)


def test_efficiency_is_the_speed_over_that_many_times_one():
    rows = utilization.efficiencies({1: 100.0, 2: 180.0, 4: None})
    assert [row["efficiency"] for row in rows] == [1.0, 0.9, None]
    assert utilization.efficiencies({1: None, 2: 180.0})[1]["efficiency"] is None


def test_model_flops_utilization():
    # 200 GFLOP in 1 ms on two devices of 400 TFLOP/s each: a quarter.
    assert utilization.model_flops_utilization(200e9, 1e-3, 400e12, 2) == pytest.approx(0.25)
    for unknown in ((None, 1e-3, 1e12), (1, None, 1e12), (1, 1e-3, None)):
        assert utilization.model_flops_utilization(*unknown) is None


def test_a_cell_is_compared_with_the_data_sheet_and_with_the_measured_peak():
    cell = Cell(precision="mixed_bfloat16", jit_compile=False, global_batch_size=64)
    # 64 images at 64,000 a second: a millisecond a step; 200 TFLOP/s.
    found = utilization.describe_cell(cell, {"engine": 64_000.0}, int(200e9), H100, PEAKS)
    assert found["share_of_data_sheet"] == pytest.approx(200 / 989.5)
    assert found["share_of_measured_peak"] == pytest.approx(200 / 800)
    unknown = utilization.describe_cell(cell, {"engine": 1.0}, 1, "No such GPU", PEAKS)
    assert unknown["share_of_data_sheet"] is None
    assert unknown["share_of_measured_peak"] is not None
    failed = utilization.describe_cell(cell, {}, 1, H100, PEAKS)
    assert failed["share_of_data_sheet"] is failed["share_of_measured_peak"] is None


def test_strong_scaling_shares_one_batch():
    cells = utilization.make_scaling(4, "tf32", 64, strong=True)
    assert [(cell.num_devices, cell.global_batch_size) for cell in cells] == [
        (1, 64), (2, 64), (4, 64),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("works_up_to", "limit", "expected"), [(100, 1000, 64), (100, 32, 32), (8, 1000, None)]
)
def test_the_batch_at_which_memory_ends(works_up_to, limit, expected):
    tried = []

    def works(size):
        tried.append(size)
        return size <= works_up_to

    assert utilization.find_largest_batch(works, 16, limit) == expected
    assert tried == sorted(set(tried)) and max(tried) <= limit


def test_each_question_changes_one_thing():
    questions = utilization.make_questions("tf32", 64)
    assert [(cell.deterministic, cell.mirrors) for cell in questions] == [
        (True, False), (False, True), (False, True),
    ]  # fmt: skip
    assert [cell.jit_compile for cell in questions] == [False, False, True]


def test_a_cell_is_measured_once_and_the_memory_apart():
    asked = []

    def find(cell):
        asked.append(cell)
        fits = cell.global_batch_size < 512
        return {"images_per_sec": {"engine": 1.0} if fits else {}, "profile": cell.num_devices}

    found = utilization.survey(find, ["tf32"], [64], 2, 1024)
    assert len(asked) == len(set(asked))
    assert found["largest_batch_size"] == 256
    searched = [cell.global_batch_size for cell in asked if cell.seeks_memory]
    assert searched == [128, 256, 512]
    replicas = [cell for cell in asked if cell.num_devices == 2]
    assert sorted((cell.jit_compile, cell.global_batch_size) for cell in replicas) == [
        (False, 64), (False, 128), (True, 128),
    ]  # fmt: skip
    assert [row["profile"] for row in found["scaling_xla"]] == [1, 2]
