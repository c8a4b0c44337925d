"""What a GPU makes of a workload: precisions, XLA, batch sizes, several GPUs, memory, copies.

    python -m benchmarks.gpu --workload cnn
    python -m benchmarks.gpu --workload resnet50 --peers_python .venv-peers/bin/python

Races the engine and `keras.Model.fit` in turn, each in a process of its own, in float32,
TensorFloat-32, bfloat16 and float16, each with and without XLA, alike for both. fit runs twice:
where its own bits vary, the engine need not have them. In one precision it also asks what
deterministic operations cost, and MirroredStrategy on one GPU, and at which batch size memory ends;
and it trains on 1, 2, 4, ... and all GPUs, with the same batch for each (weak scaling, also with
XLA in the replica function, where fit has none) and for all together (strong scaling). After each
race the engine trains under TensorFlow's profiler: the share of the wall time in which a GPU did
nothing, and that of the reduce. ResNet50 and the transformer are larger than in the races on a CPU.
With --peers_python, PyTorch and JAX race on one GPU, where they see it. Writes
benchmarks/results/gpu-<workload>_<hardware>_<date>.json, which `benchmarks.reporting.report` shows.

Without a GPU it says so and exits with 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from collections.abc import Sequence
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
from benchmarks.race import harness, process
from benchmarks.race.gpu_cell import (
    MAX_EXAMPLES,
    Measure,
    default_batch_sizes,
    gpu_workload,
    measure_cell,
)
from benchmarks.race.workloads import WORKLOADS, Task, Workload
from benchmarks.reporting import gpu_tables, records
from gradloop.usage import EXIT_USAGE

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
    workload = gpu_workload(arguments.workload)
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
            "profile": found.profile, "peers": list(found.peers),
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


def measure_copies(workload: Workload, num_bytes: int = 256 * 2**20, num_calls: int = 8) -> float:
    """Returns bytes per second from the host's memory to that of the first GPU."""
    code = _COPY_CODE.format(num_bytes=num_bytes, num_calls=num_calls)
    task = Task(workload=workload, directory=Path(), device="gpu")
    return float(process.run_python(code, task))


def make_measure(arguments: argparse.Namespace) -> Measure:
    """Returns a function that measures a cell as the flags say."""
    workload = gpu_workload(arguments.workload)
    plan = harness.Plan(num_repeats=arguments.num_repeats, num_kept=0)
    # Not resolved: an environment's interpreter is a link, and finds its packages by its place.
    peers = os.path.abspath(arguments.peers_python) if arguments.peers_python else None
    return lambda cell: measure_cell(workload, cell, plan, arguments.num_steps, peers)


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
        help="global batch sizes (default: 1, 4 and 16 times the workload's; of large nets 64, "
             "128 and 256)")  # fmt: skip
    add("--num_steps", type=int, default=100, help="steps of a repeat (default: 100)")
    add("--num_repeats", type=int, default=5, help="counted repeats (default: 5)")
    add("--max_batch_size", type=int, default=0,
        help="double the largest batch until memory ends, up to this (default: 0)")  # fmt: skip
    add("--peers_python", help="Python that has PyTorch and JAX, to race them (default: none)")
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
            if value > MAX_EXAMPLES:
                raise ValueError(f"--batch_sizes {value}: there are {MAX_EXAMPLES} examples")
    if arguments.peers_python and not os.access(arguments.peers_python, os.X_OK):
        raise ValueError(f"--peers_python {arguments.peers_python}: no such program")


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
        record = make_record(
            arguments,
            gpus,
            make_measure(arguments),
            shlex.join(["python", "-m", "benchmarks.gpu", *argv]),
        )
        path = arguments.output or records.default_path(record)
        records.write(record, path)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"benchmarks.gpu: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    print(gpu_tables.gpu_tables(record))
    print(f"Record: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
