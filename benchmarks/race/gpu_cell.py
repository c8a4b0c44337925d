"""One cell of the GPU matrix: its task, its arms, and the race of them."""

from __future__ import annotations

import dataclasses
import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.hardware.utilization import Cell
from benchmarks.race import correctness, harness, screen
from benchmarks.race.workloads import WORKLOADS, Task, Workload

# The modules of the arms, by their names in the record.
ARMS = {name: f"benchmarks.gpu_arms.{name}" for name in ("keras_fit", "keras_fit_again", "engine")}
PROFILED = "benchmarks.gpu_arms.engine_profile"
PEERS = ("torch_eager", "torch_compile", "jax_step", "jax_scan", "keras_jax_fit")
# Size of MNIST.
MAX_EXAMPLES = 60_000
# What fit's float32 inputs may take of the host's memory; each of the arms has a copy.
_MAX_BYTES = 4 * 2**30
# The nets whose workload on a CPU is too small for a GPU.
_GPU_SIZES: dict[str, dict[str, Any]] = {
    "resnet50": {"global_batch_size": 64},
    "transformer": {"global_batch_size": 64, "input_shape": (512,), "units": 1024},
}
_FACTORS = (1, 4, 16)
_LARGE_FACTORS = (1, 2, 4)


@dataclasses.dataclass
class Measured:
    """What a race of one cell gave.

    Attributes:
      speeds: Images per second by arm, of the arms that are correct.
      memory: Peak bytes of device memory of the engine.
      faults: Why the others are not, by arm.
      first_run_secs: Seconds by arm by which the first run took longer: tracing and compiling.
      fit_is_steady: Whether fit gave the same bits twice; None: unknown.
      profile: See `device_profile.device_shares`; None where the engine was not profiled.
      peers: Names of the other frameworks' arms that were in the race.
    """

    speeds: dict[str, float]
    memory: int | None = None
    faults: dict[str, str] = dataclasses.field(default_factory=dict)
    first_run_secs: dict[str, float] = dataclasses.field(default_factory=dict)
    fit_is_steady: bool | None = None
    profile: dict[str, dict[str, float]] | None = None
    peers: tuple[str, ...] = ()


Measure = Callable[[Cell], Measured]


def gpu_workload(name: str) -> Workload:
    """Returns a workload at the size of a GPU: ResNet50 and the transformer are larger there."""
    return dataclasses.replace(WORKLOADS[name], **_GPU_SIZES.get(name, {}))


def default_batch_sizes(workload: Workload) -> list[int]:
    """Returns 1, 4 and 16 times the workload's own batch size; of a large net, 1, 2 and 4 times."""
    factors = _LARGE_FACTORS if workload.name in _GPU_SIZES else _FACTORS
    return [factor * workload.global_batch_size for factor in factors]


def make_task(workload: Workload, cell: Cell, num_steps: int, directory: Path) -> Task:
    """Returns the task of the arms for a cell, whose examples fit into the host's memory."""
    batch_size = cell.global_batch_size
    batch_bytes = 4 * batch_size * math.prod(workload.input_shape)
    limit = max(2, _MAX_BYTES // batch_bytes)
    if workload.dataset != "synthetic":
        limit = MAX_EXAMPLES // batch_size
    resized = dataclasses.replace(
        workload, global_batch_size=batch_size, num_examples=batch_size * min(num_steps, limit)
    )
    return Task(
        workload=resized,
        directory=directory,
        device="gpu",
        precision=cell.precision,
        jit_compile=cell.jit_compile,
        num_devices=cell.num_devices,
        deterministic=cell.deterministic,
        mirrors=cell.mirrors,
    )


def choose_arms(cell: Cell, peers_python: str | None) -> dict[str, str]:
    """Returns the arms of a cell with their interpreters.

    The peers race where nothing but precision and batch is set: they have one GPU, and compile or
    not by themselves.

    Args:
      cell: What is asked.
      peers_python: Interpreter that has PyTorch and JAX; None: no peers.
    """
    arms = dict.fromkeys(ARMS.values(), sys.executable)
    plain = Cell(
        precision=cell.precision, jit_compile=False, global_batch_size=cell.global_batch_size
    )
    return arms | dict.fromkeys(PEERS if peers_python and cell == plain else (), peers_python or "")


def measure_cell(
    workload: Workload, cell: Cell, plan: harness.Plan, num_steps: int, peers_python: str | None
) -> Measured:
    """Races the arms of a cell; one that fails or is void has no speed.

    Args:
      workload: As large as `gpu_workload` makes it.
      cell: The combination.
      plan: How much is run.
      num_steps: Steps of a run, at most.
      peers_python: See `choose_arms`.
    """
    from benchmarks.race import preparation

    pythons = choose_arms(cell, peers_python)
    with tempfile.TemporaryDirectory(prefix="gradloop-gpu-") as directory:
        task = make_task(workload, cell, num_steps, Path(directory))
        preparation.prepare(task.workload, task.directory)
        results = harness.race(task, pythons, plan, screen.show_progress).results
        by_name = {result.short_name: result for result in results}
        is_steady = check_fit(by_name)
        tolerance = correctness.tolerance_of(task.precision)
        correctness.void_wrong_arms(results, task.directory / "initial.npz", tolerance=tolerance)
        if by_name["engine"].is_ok and not cell.seeks_memory:
            by_name["engine_profile"] = profile_engine(task)
    return describe_race(by_name, task.workload.num_examples, is_steady, list(pythons))


def profile_engine(task: Task) -> harness.ArmResult:
    """Runs the engine under the profiler, alone and after the race, and returns its result."""
    plan = harness.Plan(num_repeats=1, num_kept=0)
    outcome = harness.race(task, {PROFILED: sys.executable}, plan, screen.show_progress)
    return outcome.results[0]


def describe_race(
    by_name: Mapping[str, harness.ArmResult],
    num_examples: int,
    fit_is_steady: bool | None,
    arms: Sequence[str],
) -> Measured:
    """Returns the figures of a race.

    Args:
      by_name: Results by arm, with that of "engine_profile" if it ran.
      num_examples: Of a run.
      fit_is_steady: See `check_fit`.
      arms: Names or modules of the arms that were in the race.
    """
    good = {n: r for n, r in by_name.items() if r.is_ok and n != "engine_profile"}
    secs = {name: statistics.median(result.secs) for name, result in good.items()}
    profiled = by_name.get("engine_profile")
    return Measured(
        speeds={name: num_examples / value for name, value in secs.items()},
        memory=by_name["engine"].settings.get("device_memory_bytes"),
        faults={n: f"{r.status}: {r.reason}" for n, r in by_name.items() if not r.is_ok},
        first_run_secs={n: max(0.0, good[n].warmup_secs[0] - secs[n]) for n in good},
        fit_is_steady=fit_is_steady,
        profile=profiled.settings.get("profile") if profiled and profiled.is_ok else None,
        peers=tuple(name for name in PEERS if name in arms),
    )


def check_fit(by_name: Mapping[str, harness.ArmResult]) -> bool | None:
    """Returns whether fit gave the same bits twice; if not, no arm needs to have them.

    Args:
      by_name: Results of one race by arm; changed in place.
    """
    one, other = by_name["keras_fit"], by_name["keras_fit_again"]
    if not (one.is_ok and other.is_ok):
        return None
    is_steady = one.weights == other.weights  # equal weights are one file
    for result in by_name.values():
        result.bits_of = result.bits_of if is_steady else None
    return is_steady
