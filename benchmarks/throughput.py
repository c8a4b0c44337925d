"""Images a second of the engine and its peers: same models, same data, by turns on one machine.

    python -m benchmarks.throughput --workload tiny dense --arms engine keras_fit --record

Prints a table and, with --record, writes benchmarks/results/<workload>_<hardware>_<date>.json. The
workload `input` compares the engine on its pipeline with the engine on one batch in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import math
import os
import re
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.race import process
from benchmarks.race.workloads import WORKLOADS, Task, Workload
from gradloop.machine import num_cores

OWN_ARMS = (
    "engine", "engine_fast", "engine_resident", "keras_fit", "keras_fit_float32",
    "keras_fit_tuned", "tf_loop",
)  # fmt: skip
PEER_ARMS = ("keras_jax_fit", "torch_eager", "torch_compile", "lightning", "jax_step", "jax_scan")
INPUT_WORKLOADS = ("tiny", "dense", "cnn", "lstm")
INPUT_ARMS = ("engine", "engine_resident", "keras_fit")
PRECISIONS = ("float32", "tf32", "mixed_bfloat16", "mixed_float16")
_JIT_COMPILE = {"auto": None, "true": True, "false": False}


class UsageError(ValueError):
    """A flag's value is not legal; one line."""


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add("--workload", nargs="+", default=["tiny"], help=f"some of: {', '.join(_workloads())}")
    add("--arms", nargs="+", help="some of those in benchmarks/arms; default: all")
    add("--num_repeats", type=int, default=7, help="counted runs of each arm (default 7)")
    add("--num_warmups", type=int, default=1, help="runs before them (default 1)")
    add("--epochs_per_repeat", type=int, default=1, help="of each run (default 1)")
    add("--max_secs", type=float, default=math.inf, help="begin no round after it, once 5 count")
    add("--timeout_secs", type=float, default=900.0, help="an arm that is silent so long hangs")
    add("--num_examples", type=int, help="of an epoch; default: the workload's")
    add("--global_batch_size", type=int, help="default: the workload's")
    add("--precision", choices=PRECISIONS, default="float32")
    add("--jit_compile", choices=_JIT_COMPILE, default="auto", help="XLA, pinned for all, or auto")
    add("--device", choices=("cpu", "gpu"), default="cpu")
    add("--seed", type=int, default=0, help="of weights, order and dropout")
    add("--peers_python", default=".venv-peers/bin/python", help="the environment of the peers")
    add("--record", action="store_true", help="write the record into benchmarks/results")
    add("--output", type=Path, help="write the record there; for one workload")
    return parser


def _workloads() -> tuple[str, ...]:
    return (*WORKLOADS, "input")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures what the flags ask for; returns the exit code."""
    arguments = make_parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        check(arguments)
        if arguments.device == "gpu" and not find_gpus():
            print("No GPU here: nothing is measured.")
            return 0
        command = ["python", "-m", "benchmarks.throughput", *(argv or sys.argv[1:])]
        for workload, arms in expand(arguments):
            for task in make_tasks(arguments, workload):
                run_task(task, arms, arguments, shlex.join(command))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    return 0


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    # As an exception, so that the processes of the arms are ended on the way out.
    raise SystemExit(128 + number)


def check(arguments: argparse.Namespace) -> None:
    """Raises UsageError for what is not legal."""
    for name in arguments.workload:
        if name not in _workloads():
            raise UsageError(f"unknown workload {name!r}; legal: {', '.join(_workloads())}")
    for name in arguments.arms or ():
        if "." not in name and name not in OWN_ARMS + PEER_ARMS:
            raise UsageError(f"unknown arm {name!r}; legal: {', '.join(OWN_ARMS + PEER_ARMS)}")
    for name in ("num_repeats", "epochs_per_repeat", "num_examples", "global_batch_size"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UsageError(f"{name}={value} must be 1 or more")
    if arguments.num_warmups < 0:
        raise UsageError(f"num_warmups={arguments.num_warmups} must be 0 or more")
    if arguments.output and (len(arguments.workload) > 1 or "input" in arguments.workload):
        raise UsageError("output names one file, and there are several workloads: use --record")


def expand(arguments: argparse.Namespace) -> Iterator[tuple[Workload, list[str]]]:
    """Yields each workload, as the flags change it, with its arms."""
    for name in arguments.workload:
        if name == "input":
            for part in INPUT_WORKLOADS:
                workload = dataclasses.replace(WORKLOADS[part], name=f"input-{part}")
                yield resize(workload, arguments), choose_arms(arguments, INPUT_ARMS)
        else:
            yield resize(WORKLOADS[name], arguments), choose_arms(arguments, ())


def choose_arms(arguments: argparse.Namespace, default: Sequence[str]) -> list[str]:
    """Returns the arms in their fixed order; always with fit, which the others are held to."""
    known = [*OWN_ARMS, *PEER_ARMS]
    if arguments.precision == "float32":
        known.remove("keras_fit_float32")
    asked = {*(arguments.arms or default or known), "keras_fit"}
    return [name for name in known if name in asked] + sorted(asked - {*OWN_ARMS, *PEER_ARMS})


def resize(workload: Workload, arguments: argparse.Namespace) -> Workload:
    """Returns the workload with the batch size and the examples that were asked for."""
    batch_size = arguments.global_batch_size or workload.global_batch_size
    wanted = arguments.num_examples or workload.num_examples
    if wanted < batch_size:
        raise UsageError(f"num_examples={wanted} is less than a batch of {batch_size}")
    num_examples = wanted - wanted % batch_size
    return dataclasses.replace(workload, global_batch_size=batch_size, num_examples=num_examples)


def make_tasks(arguments: argparse.Namespace, workload: Workload) -> list[Task]:
    """Returns the tasks of a workload; the folder is filled in later."""
    return [
        Task(
            workload=workload,
            directory=Path(),
            device=arguments.device,
            precision=arguments.precision,
            jit_compile=_JIT_COMPILE[arguments.jit_compile],
            seed=arguments.seed,
        )
    ]


def find_gpus() -> list[str]:
    """Returns the names of the GPUs that TensorFlow sees; the harness itself leaves them alone."""
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(device) for device in devices]
    with contextlib.suppress(RuntimeError):  # TensorFlow has started already.
        tf.config.set_visible_devices([], "GPU")
    return [str(detail.get("device_name", "gpu")) for detail in details]


def hardware_name(device: str) -> str:
    """Returns a short name of the machine: cpu2, nvidia-h100-80gb-hbm3."""
    if device == "cpu":
        return f"cpu{num_cores()}"
    gpus = find_gpus()
    return re.sub(r"[^a-z0-9]+", "-", gpus[0].lower()).strip("-") if gpus else "gpu"


def pythons_of(arms: Sequence[str], peers_python: str) -> dict[str, str]:
    """Returns arm to interpreter: peers live in an environment of their own, if there is one."""
    peers = Path(peers_python)
    # Not resolved: an environment's interpreter is a link, and finds its packages by its place.
    python = os.path.abspath(peers) if peers.exists() else sys.executable
    return {name: python if name in PEER_ARMS else sys.executable for name in arms}


def run_task(
    task: Task, arms: Sequence[str], arguments: argparse.Namespace, command: str
) -> dict[str, Any]:
    """Measures, prints and records one task; returns the record."""
    from benchmarks.race import accuracy, correctness, harness, preparation, screen
    from benchmarks.reporting import records

    plan = harness.Plan(
        num_repeats=arguments.num_repeats,
        num_warmups=arguments.num_warmups,
        num_epochs=arguments.epochs_per_repeat,
        max_secs=arguments.max_secs,
        timeout_secs=arguments.timeout_secs,
        keeps_all_weights=task.workload.dataset != "synthetic",
    )
    with tempfile.TemporaryDirectory(prefix="gradloop-bench-") as directory:
        task = dataclasses.replace(task, directory=Path(directory))
        preparation.prepare(task.workload, task.directory, seed=task.seed)
        found = find_circumstances(task, command)
        results = harness.race(
            task, pythons_of(arms, arguments.peers_python), plan, screen.show_progress
        )
        correctness.void_wrong_arms(results, task.directory / "initial.npz")
        files = [path for result in results if result.is_ok for path in result.weights]
        is_measured = task.workload.dataset != "synthetic"
        accuracies = accuracy.evaluate_files(task, files) if is_measured else {}
        record = records.make_record(task, plan, results, accuracies, found)
    screen.show_record(record)
    if arguments.record or arguments.output:
        path = arguments.output or records.default_path(task, found.hardware, found.date)
        records.write(record, path)
        print(f"Record: {path}")
    return record


def find_circumstances(task: Task, command: str) -> Any:
    """Returns what the record says beside results; measures the machine's roof."""
    from benchmarks.reporting import records
    from gradloop.engine.runtime import describe_environment

    return records.Circumstances(
        hardware=hardware_name(task.device),
        date=datetime.date.today().isoformat(),
        command=command,
        environment=describe_environment(),
        roof=measure_roof(task),
        flops_per_step=count_flops(task.workload),
    )


def measure_roof(task: Task) -> Mapping[str, Any]:
    """Measures the roof in a process of its own, with the devices that the arms will have."""
    precisions = ["float32", "bfloat16"]
    if task.device == "gpu":
        precisions += ["float16", "tf32"]
    code = (
        "import json; from benchmarks import roof; "
        f"print(json.dumps(roof.measure_roof({precisions})))"
    )
    return process.run_python(code, task)


def count_flops(workload: Workload) -> int | None:
    """Returns the floating-point operations of a step; None if the graph does not tell."""
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
