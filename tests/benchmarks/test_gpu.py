"""The GPU matrix and its record, with devices that are made up."""

import json
import sys

import pytest

from benchmarks import gpu, throughput
from benchmarks.hardware import devices
from benchmarks.hardware.utilization import Cell
from benchmarks.race import gpu_cell, harness
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
    task = gpu_cell.make_task(WORKLOADS["cnn"], cell, num_steps, tmp_path)
    assert task.workload.num_examples == num_examples
    assert (task.device, task.precision, task.jit_compile, task.num_devices) == (
        "gpu", "tf32", True, 2,
    )  # fmt: skip


def make_profile(cell):
    reduce = 0.125 if cell.num_devices > 1 else 0.0
    idles = {f"GPU:{index}": 0.25 + 0.25 * index for index in range(cell.num_devices)}
    return {name: {"idle_share": idle, "reduce_share": reduce} for name, idle in idles.items()}


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(devices, "find_gpus", lambda: [H100, H100])
    roof = {"matmul_flops_per_sec": PEAKS, "copy_bytes_per_sec": 3e12}
    monkeypatch.setattr(throughput, "measure_roof", lambda task: roof)
    monkeypatch.setattr(throughput, "count_flops", lambda workload: 10**9)
    monkeypatch.setattr(gpu, "measure_copies", lambda workload: 25e9)

    def measure(workload, cell, plan, num_steps, peers_python):
        if cell.precision == "mixed_float16":
            return gpu_cell.Measured({"keras_fit": 5e4}, faults={"engine": "failed: out of memory"})
        if cell.global_batch_size > 256:
            return gpu_cell.Measured({}, faults={"engine": "failed: out of memory"})
        slowdown = 2 if cell.deterministic else 1
        speeds = {"engine": 6e4 * cell.num_devices**0.5 / slowdown, "keras_fit": 5e4}
        if peers_python and not cell.jit_compile:
            faults = {"jax_step": "not_implemented: JAX sees no GPU"}
            others = {"torch_eager": 3e4}
            return gpu_cell.Measured(
                speeds | others, faults=faults, peers=("torch_eager", "jax_step")
            )
        return gpu_cell.Measured(
            speeds, 2**30, fit_is_steady=cell.deterministic, profile=make_profile(cell),
            first_run_secs={"engine": 2.5, "keras_fit": 3.5},
        )  # fmt: skip

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
    for name in ("scaling", "scaling_xla", "strong_scaling"):
        assert [row["efficiency"] for row in record[name]] == [1, pytest.approx(0.5**0.5)]
    assert record["largest_batch_size"] == 256
    (tmp_path / "README.md").write_text(f"{report.BEGIN}\n{report.END}\n", "utf-8")
    page = report.make_texts(tmp_path)[report.PAGE]
    assert "| tf32 | on | 64 | 60,000 | 50,000 | 1.20 | 0.19 % | 0.23 % | 1.00 GiB |" in page
    assert "| 1.00 GiB | 25 % | 2.50 | 3.50 |" in page
    assert "| mixed_float16 | on | 64 | - | 50,000 | - | - | - | - | - | - | - |" in page
    # The mean of 25 % and 50 %; three tables.
    assert page.count("| 2 | 84,900 | 71 % | 38 % | 12 % |") == 3
    assert "| deterministic operations | off | 64 | 30,000 | 50,000 | yes | 0 % |" in page
    assert "| MirroredStrategy on one GPU | off | 64 | 60,000 | 50,000 | no | 0 % |" in page
    assert "| MirroredStrategy on one GPU | on | 64 | 60,000 | 50,000 | no | 0 % |" in page
    assert "Largest batch that fits into memory: 256; 512 does not." in page
    assert "Copies from host to device: 25.0 GB/s." in page


def test_peers_have_a_table_with_their_reasons(two_gpus, tmp_path, capsys):
    flags = ["--precisions", "tf32", "--batch_sizes", "64", "--peers_python", sys.executable]
    assert gpu.main([*flags, "--output", str(tmp_path / "gpu-cnn.json")]) == 0
    page = capsys.readouterr().out
    assert "| images/s: precision | batch | engine | torch_eager | jax_step |" in page
    assert "| tf32 | 64 | 60,000 | 30,000 | - |" in page
    assert "- `jax_step`: not_implemented: JAX sees no GPU" in page


@pytest.mark.parametrize(
    ("changes", "has_peers"),
    [({}, True), ({"jit_compile": True}, False), ({"num_devices": 2}, False),
     ({"mirrors": True}, False), ({"deterministic": True}, False), ({"seeks_memory": True}, False)],
)  # fmt: skip
def test_peers_race_where_nothing_but_precision_and_batch_is_set(changes, has_peers):
    cell = Cell(**({"precision": "tf32", "jit_compile": False, "global_batch_size": 64} | changes))
    arms = gpu_cell.choose_arms(cell, "/peers/python")
    assert [name for name, python in arms.items() if python == "/peers/python"] == (
        list(gpu_cell.PEERS) if has_peers else []
    )
    assert set(gpu_cell.ARMS.values()) <= set(arms)
    assert list(gpu_cell.choose_arms(cell, None)) == list(gpu_cell.ARMS.values())


def test_large_nets_have_the_size_of_a_gpu_and_fit_into_the_hosts_memory(tmp_path):
    workload = gpu_cell.gpu_workload("resnet50")
    assert gpu_cell.default_batch_sizes(workload) == [64, 128, 256]
    cell = Cell(precision="tf32", jit_compile=False, global_batch_size=256)
    task = gpu_cell.make_task(workload, cell, 100, tmp_path)
    assert task.workload.num_examples == 27 * 256  # 4 GiB of float32 images
    assert gpu_cell.default_batch_sizes(WORKLOADS["cnn"]) == [64, 256, 1024]
    assert gpu_cell.gpu_workload("transformer").units == 1024


def test_a_race_is_described_with_its_profile_which_has_no_speed():
    results = {name: result(name, ["a"]) for name in ("keras_fit", "engine", "engine_profile")}
    for one in results.values():
        one.warmup_secs, one.secs = [5.0], [2.0]
    profile = {"GPU:0": {"idle_share": 0.5, "reduce_share": 0.0}}
    results["engine_profile"].settings["profile"] = profile
    found = gpu_cell.describe_race(results, 100, True, ["torch_eager"])
    assert found.speeds == {"keras_fit": 50.0, "engine": 50.0}
    assert found.first_run_secs == {"keras_fit": 3.0, "engine": 3.0}
    assert (found.profile, found.peers) == (profile, ("torch_eager",))
    results["engine_profile"].fail("failed", "RuntimeError: nothing of a GPU")
    found = gpu_cell.describe_race(results, 100, True, [])
    assert found.profile is None
    assert found.faults == {"engine_profile": "failed: RuntimeError: nothing of a GPU"}


def result(name, weights, status="ok"):
    return harness.ArmResult(name, status=status, bits_of="keras_fit", weights=weights)


@pytest.mark.parametrize(
    ("again", "status", "is_steady"), [("a", "ok", True), ("b", "ok", False), ("a", "failed", None)]
)
def test_where_fit_varies_the_engine_need_not_have_its_bits(again, status, is_steady):
    results = {
        "keras_fit": result("keras_fit", ["a"]),
        "keras_fit_again": result("keras_fit_again", [again], status),
        "engine": result("engine", ["c"]),
    }
    assert gpu_cell.check_fit(results) is is_steady
    assert (results["engine"].bits_of == "keras_fit") == (is_steady is not False)


def test_without_a_gpu_it_says_so_and_exits_with_0(monkeypatch, capsys):
    monkeypatch.setattr(devices, "find_gpus", list)
    assert gpu.main([]) == 0
    assert capsys.readouterr().out == "No GPU here: nothing is measured.\n"


@pytest.mark.parametrize("flags", [["--batch_sizes", "0"], ["--num_steps", "-1"],
                                   ["--batch_sizes", "70000"],
                                   ["--peers_python", "/no/python"]])  # fmt: skip
def test_wrong_usage_is_one_line(flags, capsys):
    assert gpu.main(flags) == 2
    error = capsys.readouterr().err
    assert flags[1] in error
    assert error.count("\n") == 1
