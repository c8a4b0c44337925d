"""What a GPU makes of a workload: precisions, XLA, batch sizes, several GPUs, memory, copies.

    python -m benchmarks.gpu --workload cnn

Races the engine and `keras.Model.fit` in turn, each in a process of its own, in float32,
TensorFloat-32, bfloat16 and float16, each with and without XLA, alike for both. fit runs twice:
where its own bits vary, the engine need not have them. In one precision it also asks what
deterministic operations cost, and MirroredStrategy on one GPU, and at which batch size memory ends;
and it trains on 1, 2, 4, ... and all GPUs, with the same batch for each (weak scaling) and for all
together (strong scaling). Writes benchmarks/results/gpu-<workload>_<hardware>_<date>.json, which
`benchmarks.reporting.report` shows.

Without a GPU it says so and exits with 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import throughput
from benchmarks.hardware import data_sheets, devices
from benchmarks.hardware.utilization import (
    PRECISIONS,
    Cell,
    describe_cell,
    survey,
)
from benchmarks.race import correctness, harness, process, screen
from benchmarks.race.workloads import WORKLOADS, Task, Workload
from benchmarks.reporting import records, tables
from gradloop.usage import EXIT_USAGE

# The modules of the arms, by their names in the record.
ARMS = {name: f"benchmarks.gpu_arms.{name}" for name in ("keras_fit", "keras_fit_again", "engine")}
# Size of MNIST.
_MAX_EXAMPLES = 60_000
_COPY_CODE = """
import json, statistics, time
import tensorflow as tf
with tf.device("CPU:0"):
    host = tf.zeros([{num_bytes} // 4])
secs = []
for _ in range({num_calls}):
    started_at = time.perf_counter()
    with tf.device("GPU:0"):
        there = tf.identity(host)
    there[0].numpy()
    secs.append(time.perf_counter() - started_at)
print(json.dumps({num_bytes} / statistics.median(secs[1:])))
"""


@dataclasses.dataclass
class Measured:
    """What a race of one cell gave.

    Attributes:
      speeds: Images per second by arm, of the arms that are correct.
      memory: Peak bytes of device memory of the engine.
      faults: Why the others are not, by arm.
      first_run_secs: Seconds by arm by which the first run took longer: tracing and compiling.
      fit_is_steady: Whether fit gave the same bits twice; None: unknown.
    """

    speeds: dict[str, float]
    memory: int | None = None
    faults: dict[str, str] = dataclasses.field(default_factory=dict)
    first_run_secs: dict[str, float] = dataclasses.field(default_factory=dict)
    fit_is_steady: bool | None = None


Measure = Callable[[Cell], Measured]


def make_task(workload: Workload, cell: Cell, num_steps: int, directory: Path) -> Task:
    """Returns the task of the arms for a cell."""
    batch_size = cell.global_batch_size
    limit = num_steps if workload.dataset == "synthetic" else _MAX_EXAMPLES // batch_size
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


def measure_cell(workload: Workload, cell: Cell, num_steps: int, num_repeats: int) -> Measured:
    """Races the engine and fit; an arm that fails or is void has no speed."""
    from benchmarks.race import preparation

    with tempfile.TemporaryDirectory(prefix="gradloop-gpu-") as directory:
        task = make_task(workload, cell, num_steps, Path(directory))
        preparation.prepare(task.workload, task.directory)
        pythons = dict.fromkeys(ARMS.values(), sys.executable)
        plan = harness.Plan(num_repeats=num_repeats, keeps_all_weights=False)
        results = harness.race(task, pythons, plan, screen.show_progress)
        by_name = {result.name.rpartition(".")[2]: result for result in results}
        is_steady = check_fit(by_name)
        correctness.void_wrong_arms(
            results, task.directory / "initial.npz", reference_name=ARMS["keras_fit"]
        )
    good = {name: result for name, result in by_name.items() if result.is_ok}
    secs = {name: statistics.median(result.secs) for name, result in good.items()}
    return Measured(
        speeds={name: task.workload.num_examples / value for name, value in secs.items()},
        memory=by_name["engine"].settings.get("device_memory_bytes"),
        faults={n: f"{r.status}: {r.reason}" for n, r in by_name.items() if not r.is_ok},
        first_run_secs={n: max(0.0, good[n].warmup_secs[0] - secs[n]) for n in good},
        fit_is_steady=is_steady,
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
        result.claims_bits = result.claims_bits and is_steady
    return is_steady


def make_record(
    arguments: argparse.Namespace, gpus: Sequence[str], measure: Measure, command: str
) -> dict[str, Any]:
    """Measures everything and returns the record.

    Args:
      arguments: The flags.
      gpus: Names of the GPUs, as the driver has them.
      measure: Measures one cell.
      command: As a person types it.
    """
    workload = WORKLOADS[arguments.workload]
    batch_sizes = arguments.batch_sizes or default_batch_sizes(workload)
    roof = throughput.measure_roof(Task(workload=workload, directory=Path(), device="gpu"))
    peaks = roof["matmul_flops_per_sec"]

    def find(cell: Cell) -> dict[str, Any]:
        print(f"{cell.precision}, XLA {'on' if cell.jit_compile else 'off'}, batch "
              f"{cell.global_batch_size}, {cell.num_devices} GPU(s)", file=sys.stderr)  # fmt: skip
        resized = dataclasses.replace(workload, global_batch_size=cell.global_batch_size)
        flops = throughput.count_flops(resized)
        found = measure(cell)
        described = describe_cell(cell, found.speeds, flops, gpus[0], peaks)
        return described | {
            "device_memory_bytes": found.memory, "faults": found.faults,
            "first_run_secs": found.first_run_secs, "fit_is_steady": found.fit_is_steady,
        }  # fmt: skip

    measured = survey(find, arguments.precisions, batch_sizes, len(gpus), arguments.max_batch_size)
    described = records.describe_run(devices.short_name("gpu"), command)
    sheet = data_sheets.find(gpus[0])
    return {
        "workload": f"gpu-{workload.name}",
        **described,
        "fingerprint": records.fingerprint(
            described["environment"], arguments.precisions, batch_sizes, list(gpus)
        ),
        "gpus": list(gpus),
        "data_sheet": None if sheet is None else dataclasses.asdict(sheet),
        "roof": roof,
        "host_to_device_bytes_per_sec": measure_copies(workload),
        **measured,
    }


def default_batch_sizes(workload: Workload) -> list[int]:
    """Returns 1, 4 and 16 times the workload's own batch size."""
    return [factor * workload.global_batch_size for factor in (1, 4, 16)]


def measure_copies(workload: Workload, num_bytes: int = 256 * 2**20, num_calls: int = 8) -> float:
    """Returns bytes per second from the host's memory to that of the first GPU."""
    code = _COPY_CODE.format(num_bytes=num_bytes, num_calls=num_calls)
    task = Task(workload=workload, directory=Path(), device="gpu")
    return float(process.run_python(code, task))


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--workload", default="cnn", choices=WORKLOADS, help="default: cnn")
    add("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS,
        help="default: all; the first one is that of several GPUs")  # fmt: skip
    add("--batch_sizes", nargs="+", type=int,
        help="global batch sizes (default: 1, 4 and 16 times the workload's)")  # fmt: skip
    add("--num_steps", type=int, default=100, help="steps of a repeat (default: 100)")
    add("--num_repeats", type=int, default=5, help="counted repeats (default: 5)")
    add("--max_batch_size", type=int, default=0,
        help="double the largest batch until memory ends, up to this (default: 0)")  # fmt: skip
    add("--output", type=Path, help="write the record there (default: in benchmarks/results)")
    return parser


def check(arguments: argparse.Namespace) -> None:
    """Raises ValueError if a flag is illegal."""
    numbers = {"num_steps": [arguments.num_steps], "num_repeats": [arguments.num_repeats]}
    numbers["batch_sizes"] = arguments.batch_sizes or []
    for name, values in numbers.items():
        for value in values:
            if value < 1:
                raise ValueError(f"--{name} {value}: must be 1 or more")
    if WORKLOADS[arguments.workload].dataset != "synthetic":
        for value in numbers["batch_sizes"]:
            if value > _MAX_EXAMPLES:
                raise ValueError(f"--batch_sizes {value}: there are {_MAX_EXAMPLES} examples")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes a record; returns 0, or 2 for wrong usage."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = make_parser().parse_args(argv)
    try:
        check(arguments)
        gpus = devices.find_gpus()
        if not gpus:
            print("No GPU here: nothing is measured.")
            return 0
        workload = WORKLOADS[arguments.workload]
        record = make_record(
            arguments,
            gpus,
            lambda cell: measure_cell(workload, cell, arguments.num_steps, arguments.num_repeats),
            shlex.join(["python", "-m", "benchmarks.gpu", *argv]),
        )
        path = arguments.output or records.default_path(record)
        records.write(record, path)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"benchmarks.gpu: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    print(tables.gpu_tables(record))
    print(f"Record: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
