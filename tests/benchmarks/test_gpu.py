"""The GPU matrix and its record, with devices that are made up."""

import json

import pytest

from benchmarks import gpu, throughput
from benchmarks.hardware import devices
from benchmarks.hardware.utilization import Cell
from benchmarks.race import harness
from benchmarks.race.workloads import WORKLOADS
from benchmarks.reporting import report

H100 = "NVIDIA H100 80GB HBM3"
PEAKS = {"float32": 50e12, "tf32": 400e12, "bfloat16": 800e12, "float16": 800e12}


@pytest.fixture(autouse=True)
def fresh_keras():
    """Replaces conftest's: nothing here runs Keras."""


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
    monkeypatch.setattr(devices, "find_gpus", lambda: [H100, H100])
    roof = {"matmul_flops_per_sec": PEAKS, "copy_bytes_per_sec": 3e12}
    monkeypatch.setattr(throughput, "measure_roof", lambda task: roof)
    monkeypatch.setattr(throughput, "count_flops", lambda workload: 10**9)
    monkeypatch.setattr(gpu, "measure_copies", lambda workload: 25e9)

    def measure(workload, cell, num_steps, num_repeats):
        if cell.precision == "mixed_float16":
            return gpu.Measured({"keras_fit": 5e4}, faults={"engine": "failed: out of memory"})
        if cell.global_batch_size > 256:
            return gpu.Measured({}, faults={"engine": "failed: out of memory"})
        slowdown = 2 if cell.deterministic else 1
        speeds = {"engine": 6e4 * cell.num_devices**0.5 / slowdown, "keras_fit": 5e4}
        return gpu.Measured(speeds, 2**30, fit_is_steady=cell.deterministic)

    monkeypatch.setattr(gpu, "measure_cell", measure)


def test_a_record_of_faked_gpus_and_its_page(two_gpus, tmp_path, capsys):
    path = tmp_path / report.RESULTS / "gpu-cnn.json"
    flags = ["--precisions", "tf32", "mixed_float16", "--batch_sizes", "64"]
    flags += ["--max_batch_size", "4096"]
    assert gpu.main([*flags, "--output", str(path)]) == 0
    record = json.loads(path.read_text("utf-8"))
    assert (record["workload"], record["hardware"]) == ("gpu-cnn", "nvidia-h100-80gb-hbm3")
    assert record["data_sheet"]["title"] == "H100 SXM"
    assert len(record["cells"]) == 4
    assert record["cells"][-1]["faults"] == {"engine": "failed: out of memory"}
    for name in ("scaling", "strong_scaling"):
        assert [row["efficiency"] for row in record[name]] == [1, pytest.approx(0.5**0.5)]
    assert record["largest_batch_size"] == 256
    (tmp_path / "README.md").write_text(f"{report.BEGIN}\n{report.END}\n", "utf-8")
    page = report.make_texts(tmp_path)[report.PAGE]
    assert "| tf32 | on | 64 | 60,000 | 50,000 | 1.20 | 0.19 % | 0.23 % | 1.00 GiB |" in page
    assert "| mixed_float16 | on | 64 | - | 50,000 | - | - | - | - |" in page
    assert "| 2 | 84,900 | 71 % |" in page
    assert "| deterministic operations | 64 | 30,000 | 50,000 | yes |" in page
    assert "| MirroredStrategy on one GPU | 64 | 60,000 | 50,000 | no |" in page
    assert "Copies from host to device: 25.0 GB/s." in page


def result(name, weights, status="ok"):
    return harness.ArmResult(name, status=status, claims_bits=True, weights=weights)


@pytest.mark.parametrize(
    ("again", "status", "is_steady"), [("a", "ok", True), ("b", "ok", False), ("a", "failed", None)]
)
def test_where_fit_varies_the_engine_need_not_have_its_bits(again, status, is_steady):
    results = {
        "keras_fit": result("keras_fit", ["a"]),
        "keras_fit_again": result("keras_fit_again", [again], status),
        "engine": result("engine", ["c"]),
    }
    assert gpu.check_fit(results) is is_steady
    assert results["engine"].claims_bits == (is_steady is not False)


def test_without_a_gpu_it_says_so_and_exits_with_0(monkeypatch, capsys):
    monkeypatch.setattr(devices, "find_gpus", list)
    assert gpu.main([]) == 0
    assert capsys.readouterr().out == "No GPU here: nothing is measured.\n"


@pytest.mark.parametrize("flags", [["--batch_sizes", "0"], ["--num_steps", "-1"],
                                   ["--batch_sizes", "70000"]])  # fmt: skip
def test_wrong_usage_is_one_line(flags, capsys):
    assert gpu.main(flags) == 2
    error = capsys.readouterr().err
    assert flags[1] in error
    assert error.count("\n") == 1
