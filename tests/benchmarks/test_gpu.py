"""The GPU matrix, its arithmetic and its record, with devices that are made up."""

import json

import pytest

from benchmarks import gpu, throughput
from benchmarks.hardware import utilisation
from benchmarks.hardware.utilisation import Cell
from benchmarks.race.workloads import WORKLOADS
from benchmarks.reporting import report

H100 = "NVIDIA H100 80GB HBM3"
PEAKS = {"float32": 50e12, "tf32": 400e12, "bfloat16": 800e12, "float16": 800e12}


@pytest.fixture(autouse=True)
def fresh_keras():
    """Replaces conftest's: nothing here runs Keras."""


def test_the_matrix_has_every_combination_once():
    cells = utilisation.make_matrix(("float32", "mixed_bfloat16"), (64, 256))
    assert len(set(cells)) == len(cells) == 8
    assert {cell.jit_compile for cell in cells} == {True, False}
    assert all(cell.num_devices == 1 for cell in cells)


@pytest.mark.parametrize(
    ("num_gpus", "counts"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8])]
)
def test_each_gpu_gets_the_same_batch(num_gpus, counts):
    cells = utilisation.make_scaling(num_gpus, "tf32", 64)
    assert [cell.num_devices for cell in cells] == counts
    assert [cell.global_batch_size for cell in cells] == [64 * count for count in counts]
    assert not any(cell.jit_compile for cell in cells)


def test_efficiency_is_a_share_of_as_many_times_one():
    rows = utilisation.efficiencies({1: 100.0, 2: 180.0, 4: None})
    assert [row["efficiency"] for row in rows] == [1.0, 0.9, None]
    assert utilisation.efficiencies({1: None, 2: 180.0})[1]["efficiency"] is None


def test_model_flops_utilisation():
    # 200 GFLOP in 1 ms on two devices of 400 TFLOP/s each: a quarter.
    assert utilisation.model_flops_utilisation(200e9, 1e-3, 400e12, 2) == pytest.approx(0.25)
    for unknown in ((None, 1e-3, 1e12), (1, None, 1e12), (1, 1e-3, None)):
        assert utilisation.model_flops_utilisation(*unknown) is None


def test_a_cell_is_held_against_the_sheet_and_against_what_was_measured():
    cell = Cell(precision="mixed_bfloat16", jit_compile=False, global_batch_size=64)
    # 64 images at 64,000 a second: a millisecond a step; 200 TFLOP/s.
    found = utilisation.describe_cell(cell, {"engine": 64_000.0}, int(200e9), H100, PEAKS)
    assert found["share_of_data_sheet"] == pytest.approx(200 / 989.5)
    assert found["share_of_measured_peak"] == pytest.approx(200 / 800)
    unknown = utilisation.describe_cell(cell, {"engine": 1.0}, 1, "No such GPU", PEAKS)
    assert unknown["share_of_data_sheet"] is None
    assert unknown["share_of_measured_peak"] is not None
    failed = utilisation.describe_cell(cell, {}, 1, H100, PEAKS)
    assert failed["share_of_data_sheet"] is failed["share_of_measured_peak"] is None


@pytest.mark.parametrize(
    ("batch_size", "num_steps", "num_examples"), [(64, 100, 6400), (4096, 100, 14 * 4096)]
)
def test_the_task_pins_xla_and_fits_into_the_data(batch_size, num_steps, num_examples, tmp_path):
    cell = Cell(precision="tf32", jit_compile=True, global_batch_size=batch_size, num_devices=2)
    task = gpu.make_task(WORKLOADS["cnn"], cell, num_steps, tmp_path)
    assert task.workload.num_examples == num_examples
    assert (task.device, task.precision, task.jit_compile, task.num_devices) == (
        "gpu", "tf32", True, 2,
    )  # fmt: skip


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(throughput, "find_gpus", lambda: [H100, H100])
    roof = {"matmul_flops_per_sec": PEAKS, "copy_bytes_per_sec": 3e12}
    monkeypatch.setattr(throughput, "measure_roof", lambda task: roof)
    monkeypatch.setattr(throughput, "count_flops", lambda workload: 10**9)
    monkeypatch.setattr(gpu, "measure_copies", lambda workload: 25e9)

    def measure(workload, cell, num_steps, num_repeats):
        if cell.precision == "mixed_float16":
            return {"keras_fit": 5e4}, None, {"engine": "failed: out of memory"}
        speeds = {"engine": 6e4 * cell.num_devices**0.5, "keras_fit": 5e4}
        return speeds, 2**30, {}

    monkeypatch.setattr(gpu, "measure_cell", measure)


def test_a_record_of_faked_gpus_and_its_page(two_gpus, tmp_path, capsys):
    path = tmp_path / report.RESULTS / "gpu-cnn.json"
    flags = ["--precisions", "tf32", "mixed_float16", "--batch_sizes", "64"]
    assert gpu.main([*flags, "--output", str(path)]) == 0
    record = json.loads(path.read_text("utf-8"))
    assert (record["workload"], record["hardware"]) == ("gpu-cnn", "nvidia-h100-80gb-hbm3")
    assert record["data_sheet"]["title"] == "H100 SXM"
    assert len(record["cells"]) == 4
    assert record["cells"][-1]["faults"] == {"engine": "failed: out of memory"}
    assert [row["efficiency"] for row in record["scaling"]] == [1, pytest.approx(0.5**0.5)]
    (tmp_path / "README.md").write_text(f"{report.BEGIN}\n{report.END}\n", "utf-8")
    page = report.make_texts(tmp_path)[report.PAGE]
    assert "| tf32 | on | 64 | 60,000 | 50,000 | 1.20 | 0.19 % | 0.23 % | 1.00 GiB |" in page
    assert "| mixed_float16 | on | 64 | - | 50,000 | - | - | - | - |" in page
    assert "| 2 | 84,900 | 71 % |" in page
    assert "Copies from host to device: 25.0 GB/s." in page


def test_without_a_gpu_it_says_so_and_is_content(monkeypatch, capsys):
    monkeypatch.setattr(throughput, "find_gpus", list)
    assert gpu.main([]) == 0
    assert capsys.readouterr().out == "No GPU here: nothing is measured.\n"


@pytest.mark.parametrize("flags", [["--batch_sizes", "0"], ["--num_steps", "-1"],
                                   ["--batch_sizes", "70000"]])  # fmt: skip
def test_wrong_usage_is_one_line(flags, capsys):
    assert gpu.main(flags) == 2
    error = capsys.readouterr().err
    assert flags[1] in error
    assert error.count("\n") == 1
