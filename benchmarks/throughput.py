"""Images per second of the engine and its peers: same model, same data, one machine.

    python -m benchmarks.throughput --workload tiny dense --arms engine keras_fit --record

An arm is a contender in a race: one way to train the same net, in a process of its own. In each
round all arms run in turn, within seconds; the ratio of two is the median of their ratios within
the rounds. The race goes on until the intervals of the engine's ratios are narrow, or to a limit.
Prints a table and, with --record, writes
benchmarks/results/<workload>_<hardware>_<date>T<time>.json. The workload `input` compares the
engine on its pipeline with the engine on one batch that stays in memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.hardware import devices
from benchmarks.race import correctness, flags, harness, process, screen
from benchmarks.race.workloads import Task, Workload
from benchmarks.reporting import records
from gradloop.usage import EXIT_USAGE

EXIT_INTERRUPTED = 128 + signal.SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Measures what the flags ask for and returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = flags.make_parser(__doc__).parse_args(argv)
    signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        flags.check(arguments)
        if arguments.device == "gpu" and not devices.find_gpus():
            print("No GPU here: nothing is measured.")
            return 0
        command = shlex.join(["python", "-m", "benchmarks.throughput", *argv])
        for workload, arms in flags.expand(arguments):
            run_task(flags.make_task(arguments, workload), arms, arguments, command)
    except flags.UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    # As an exception, so that the processes of the arms are ended on the way out.
    raise SystemExit(128 + number)


def pythons_of(arms: Sequence[str], peers_python: str) -> dict[str, str]:
    """Returns arm to interpreter: the peers have an environment of their own, if it exists."""
    peers = Path(peers_python)
    # Not resolved: an environment's interpreter is a link, and finds its packages by its place.
    python = os.path.abspath(peers) if peers.exists() else sys.executable
    return {name: python if name in flags.PEER_ARMS else sys.executable for name in arms}


def run_task(
    task: Task, arms: Sequence[str], arguments: argparse.Namespace, command: str
) -> dict[str, Any]:
    """Measures, prints and records one task; returns the record."""
    from benchmarks.race import accuracy, preparation

    is_measured = task.workload.dataset != "synthetic"
    plan = make_plan(arguments, task.workload, arms)
    with tempfile.TemporaryDirectory(prefix="gradloop-bench-") as directory:
        task = dataclasses.replace(task, directory=Path(directory))
        preparation.prepare(task.workload, task.directory, seed=task.seed)
        circumstances = find_circumstances(task, command)
        pythons = pythons_of(arms, arguments.peers_python)
        outcome = harness.race(task, pythons, plan, screen.show_progress)
        tolerance = correctness.tolerance_of(task.precision)
        correctness.void_wrong_arms(
            outcome.results, task.directory / "initial.npz", tolerance=tolerance
        )
        files = [path for result in outcome.results if result.is_ok for path in result.weights]
        accuracies = accuracy.evaluate_files(task, files) if is_measured else {}
        record = records.make_record(task, plan, outcome, accuracies, circumstances)
    screen.show_record(record)
    if arguments.record or arguments.output:
        path = arguments.output or records.default_path(record)
        records.write(record, path)
        print(f"Record: {path}")
    return record


def make_plan(
    arguments: argparse.Namespace, workload: Workload, arms: Sequence[str]
) -> harness.Plan:
    """Returns how much is run."""
    default_secs = workload.secs_per_arm * len(arms)
    has_choice = arguments.device == "cpu" and arguments.num_devices == 1
    return harness.Plan(
        tries_threads=frozenset({*arms} - {*flags.ARMS_AS_THEY_COME} if has_choice else ()),
        num_repeats=arguments.num_repeats,
        num_warmups=arguments.num_warmups,
        num_epochs=arguments.epochs_per_repeat,
        max_secs=default_secs if arguments.max_secs is None else arguments.max_secs,
        max_width=arguments.max_width,
        timeout_secs=arguments.timeout_secs,
        # Large weights, whose accuracy is not measured, are read once.
        num_kept=0 if workload.dataset == "synthetic" else harness.Plan.num_kept,
    )


def find_circumstances(task: Task, command: str) -> records.Circumstances:
    """Returns what the record says besides the results; measures the machine's roof."""
    return records.Circumstances(
        **records.describe_run(devices.short_name(task.device), command),
        roof=measure_roof(task),
        flops_per_step=count_flops(task.workload),
    )


def measure_roof(task: Task, secs: float = 4.0) -> Mapping[str, Any]:
    """Measures the roof in a process of its own, on the devices that the arms will have.

    See `benchmarks.hardware.roof.measure_roof`.
    """
    precisions = ["float32", "float32_xla", "bfloat16"]
    if task.device == "gpu":
        precisions += ["float16", "tf32"]
    code = (
        "import json; from benchmarks.hardware import roof; "
        f"print(json.dumps(roof.measure_roof({precisions}, secs={secs})))"
    )
    found: Mapping[str, Any] = process.run_python(code, task)
    return found


def count_flops(workload: Workload) -> int | None:
    """Returns the floating-point operations of a step, or None if the graph does not tell."""
    import tensorflow as tf

    from benchmarks.hardware import flops
    from benchmarks.race import keras_models

    is_text = len(workload.input_shape) == 1
    shape = (workload.global_batch_size, *workload.input_shape)
    spec = (
        tf.TensorSpec(shape, tf.int32 if is_text else tf.float32),
        tf.TensorSpec((workload.global_batch_size, workload.num_classes), tf.float32),
    )
    model, loss = keras_models.build(workload), keras_models.make_loss(workload)
    try:
        return flops.count_train_step_flops(model, loss, spec)
    except ValueError as error:
        print(f"Operations of {workload.name} not counted: {error}", file=sys.stderr)
        return None


if __name__ == "__main__":
    sys.exit(main())
