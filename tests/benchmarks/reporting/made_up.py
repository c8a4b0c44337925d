"""Results and records made up by hand, for the tests of what reads them."""

import dataclasses
from pathlib import Path

from benchmarks.race.harness import ArmResult, Outcome
from benchmarks.race.workloads import WORKLOADS, Task
from benchmarks.reporting import races, records

WORKLOAD = dataclasses.replace(WORKLOADS["tiny"], num_examples=28_800)
TASK = Task(workload=WORKLOAD, directory=Path("/nowhere"))
CIRCUMSTANCES = records.Circumstances(
    hardware="cpu2",
    date="2026-11-22",
    time="2215",
    command="python -m benchmarks.throughput",
    environment={"git_commit": "abc"},
    roof={"matmul_flops_per_sec": {"float32": 1e9, "bfloat16": 2e9}, "copy_bytes_per_sec": 1e9},
    flops_per_step=100_000,
)


def result(name, secs, **values):
    """Returns what an arm did in one warm-up and the counted runs."""
    paths = [Path(f"{name}-{index}") for index in range(len(secs) + 1)]
    defaults = {
        "bits_of": "keras_fit",
        "setup_secs": 1.5,
        "import_secs": 4.0,
        "peak_memory_bytes": 2**20,
        "warmup_secs": [3.0],
        "secs": secs,
        "losses": [0.5] * len(paths),
        "joules": [None] * len(paths),
        "weights": paths,
        "kept_runs": list(range(len(paths))),
    }
    return ArmResult(name, **(defaults | values))


def outcome(results):
    """Returns how a race ended in which these arms were."""
    return Outcome(results, "num_repeats")


def results():
    """Returns two correct arms, a void one, and one whose framework is missing."""
    void = result("tf_loop", [1.0, 1.0, 1.0])
    void.fail("void", "a planted fault")
    missing = ArmResult("jax_scan", status="not_installed", reason="No module named 'jax'")
    return [
        result("engine", [0.5, 0.75, 0.6], joules=[100.0, 6.0, 12.0, 18.0]),
        result("keras_fit", [3.0, 3.0, 3.0]),
        void,
        missing,
    ]


def arm(speed, *, status="ok", spread=0.02, startup_secs=1.0, peak_memory_bytes=2**30, reason=None):
    if status != "ok":
        return {"status": status, "reason": reason, "settings": {}, "versions": {}, "secs": []}
    quartiles = {"quartile_1": speed * (1 - spread), "quartile_3": speed * (1 + spread)}
    return {
        "status": "ok",
        "reason": None,
        "settings": {},
        "versions": {},
        "bits_of": None,
        "secs": [6400 / speed] * 5,
        "images_per_sec": {"median": speed, **quartiles},
        "usecs_per_step": {"median": 64e6 / speed, "quartile_1": 1.0, "quartile_3": 2.0},
        "share_of_roof": 0.25,
        "startup_secs": startup_secs,
        "secs_to_accuracy": {"0.97": 12.5, "0.99": None},
        "peak_memory_bytes": peak_memory_bytes,
        "joules_per_image": None,
    }


def record(arms, *, workload="cnn", precision="float32", ratios=(), **values):
    return {
        "workload": workload,
        "task": {"precision": precision, "device": "cpu"},
        "num_repeats": 5,
        "stopped_by": "intervals",
        "hardware": "cpu2",
        "date": "2026-11-22",
        "command": f"python -m benchmarks.throughput --workload {workload}",
        "environment": {
            "processor": "Some CPU",
            "num_cores": 2,
            "tensorflow": "2.21.0",
            "keras": "3.15.1",
            "python": "3.11.7",
            "git_commit": "0123456789abcdef",
            "git_has_changes": False,
            "physical_devices": [{"name": "CPU:0", "model": None}],
        },
        "roof": {"matmul_flops_per_sec": {"float32": 5e11}, "copy_bytes_per_sec": 2e10},
        "flops_per_step": 4_580_179_968,
        "arms": arms,
        "ratios": list(ratios),
        **values,
    }


def races_of(*records):
    """Returns the races of records of one kind of machine, by name."""
    return {name: race for (name, _), race in races.group(records).items()}


def ratio(name, over, median, low=None, high=None, verdict="faster"):
    return {
        "arm": name,
        "over": over,
        "median": median,
        "low": median * 0.95 if low is None else low,
        "high": median * 1.05 if high is None else high,
        "verdict": verdict,
    }
