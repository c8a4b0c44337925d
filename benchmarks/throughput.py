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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.hardware import devices
from benchmarks.hardware.utilization import PRECISIONS
from benchmarks.race import correctness, harness, process, screen, stopping
from benchmarks.race.workloads import WORKLOADS, Task, Workload
from benchmarks.reporting import records
from gradloop.usage import EXIT_USAGE

OWN_ARMS = (
    "engine", "engine_tuned", "engine_xla", "engine_free", "engine_resident", "keras_fit",
    "keras_fit_tuned", "keras_fit_xla", "keras_fit_float32", "tf_loop",
)  # fmt: skip
PEER_ARMS = ("keras_jax_fit", "torch_eager", "torch_compile", "lightning", "jax_step", "jax_scan")
# What can train under MirroredStrategy: fit cannot, with several steps an execution.
REPLICA_ARMS = ("engine", "keras_fit")
# The fastest training with the bits of fit, of either kind, and what it is compared with.
HEADLINE_ARMS = ("engine", "engine_xla", "keras_fit", "keras_fit_tuned", "keras_fit_xla")
# Trained as they come, or compared with one that is; what `tune` tunes has its threads from there.
# The others have the number of threads with which they are fastest.
ARMS_AS_THEY_COME = (
    "engine", "engine_tuned", "engine_xla", "engine_free", "engine_resident", "keras_fit",
    "keras_fit_float32",
)  # fmt: skip
INPUT_WORKLOADS = ("tiny", "dense", "cnn", "lstm")
INPUT_ARMS = ("engine", "engine_resident", "keras_fit")
EXIT_INTERRUPTED = 128 + signal.SIGINT
_JIT_COMPILE = {"auto": None, "true": True, "false": False}


class UsageError(ValueError):
    """A flag's value is not legal; the message is one line."""


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add("--workload", nargs="+", default=["tiny"],
        help=f"one or more of {', '.join(_workloads())}")  # fmt: skip
    add("--arms", nargs="+",
        help="names of files in benchmarks/arms, or 'headline' (default: all)")  # fmt: skip
    add("--num_repeats", type=int, default=60,
        help="counted runs of each arm, at most (default: 60)")  # fmt: skip
    add("--num_warmups", type=int, default=1, help="runs before those (default: 1)")
    add("--epochs_per_repeat", type=int, default=1, help="epochs of a run (default: 1)")
    add("--max_width", type=float, default=stopping.MAX_WIDTH,
        help="start no further round once the intervals of the engine's ratios are at most this\n"
        f"share of the ratio, after {stopping.MIN_ROUNDS_OF_INTERVALS} rounds or more "
        f"(default: {stopping.MAX_WIDTH})")  # fmt: skip
    add("--max_secs", type=float,
        help=f"start no further round after this time, once {stopping.MIN_ROUNDS} are counted\n"
        "(default: 24 seconds for each arm; resnet50: 60)")  # fmt: skip
    add("--timeout_secs", type=float, default=900.0,
        help="an arm that does not answer for this long is ended (default: 900)")  # fmt: skip
    add("--num_examples", type=int, help="examples of an epoch (default: the workload's)")
    add("--global_batch_size", type=int, help="examples of a step (default: the workload's)")
    add("--precision", choices=PRECISIONS, default="float32", help="default: float32")
    add("--jit_compile", choices=_JIT_COMPILE, default="auto",
        help="XLA for all TensorFlow arms alike; auto: each arm decides (default)")  # fmt: skip
    add("--device", choices=("cpu", "gpu"), default="cpu", help="default: cpu")
    add("--num_devices", type=int, default=1,
        help="GPUs, or logical CPU devices, of a MirroredStrategy (default: 1)")  # fmt: skip
    add("--seed", type=int, default=0, help="seed of weights, order and dropout (default: 0)")
    add("--peers_python", default=".venv-peers/bin/python", help="Python of the other frameworks")
    add("--record", action="store_true", help="write the record into benchmarks/results")
    add("--output", type=Path, help="write the record to this file; for one workload")
    return parser


def _workloads() -> tuple[str, ...]:
    return (*WORKLOADS, "input", "all")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures what the flags ask for and returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = make_parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        check(arguments)
        if arguments.device == "gpu" and not devices.find_gpus():
            print("No GPU here: nothing is measured.")
            return 0
        command = shlex.join(["python", "-m", "benchmarks.throughput", *argv])
        for workload, arms in expand(arguments):
            run_task(make_task(arguments, workload), arms, arguments, command)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    # As an exception, so that the processes of the arms are ended on the way out.
    raise SystemExit(128 + number)


def check(arguments: argparse.Namespace) -> None:
    """Raises UsageError if a flag is illegal."""
    for name in arguments.workload:
        if name not in _workloads():
            raise UsageError(f"unknown workload {name!r}; legal: {', '.join(_workloads())}")
    legal = ("headline", *OWN_ARMS, *PEER_ARMS)
    for name in arguments.arms or ():
        if "." not in name and name not in legal:
            raise UsageError(f"unknown arm {name!r}; legal: {', '.join(legal)}")
        if arguments.num_devices > 1 and "." not in name and name not in REPLICA_ARMS:
            raise UsageError(
                f"arm {name!r} trains on one device; with num_devices: {', '.join(REPLICA_ARMS)}"
            )
    for name in (
        "num_repeats", "epochs_per_repeat", "num_examples", "global_batch_size", "num_devices"
    ):  # fmt: skip
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UsageError(f"{name}={value} must be 1 or more")
    for name in ("num_warmups", "max_width", "max_secs"):
        value = getattr(arguments, name)
        if value is not None and not value >= 0:
            raise UsageError(f"{name}={value} must be 0 or more")
    if arguments.output and (len(arguments.workload) > 1 or arguments.workload[0] not in WORKLOADS):
        raise UsageError("output names one file, and there are several workloads: use --record")


def expand(arguments: argparse.Namespace) -> Iterator[tuple[Workload, list[str]]]:
    """Yields each workload, resized as the flags say, with its arms."""
    for name in arguments.workload:
        if name == "all":
            for one in WORKLOADS.values():
                yield resize(one, arguments), choose_arms(arguments, ())
        elif name == "input":
            for part in INPUT_WORKLOADS:
                workload = dataclasses.replace(WORKLOADS[part], name=f"input-{part}")
                yield resize(workload, arguments), choose_arms(arguments, INPUT_ARMS)
        else:
            yield resize(WORKLOADS[name], arguments), choose_arms(arguments, ())


def choose_arms(arguments: argparse.Namespace, default: Sequence[str]) -> list[str]:
    """Returns the arms in a fixed order.

    What an arm is compared with is always among them: `keras_fit`, and for `engine_xla`
    `keras_fit_xla`.
    """
    known = [*OWN_ARMS, *PEER_ARMS] if arguments.num_devices == 1 else [*REPLICA_ARMS]
    if arguments.precision == "float32":
        known = [name for name in known if name != "keras_fit_float32"]
    asked = {*(arguments.arms or default or known), "keras_fit"}
    if "headline" in asked:
        asked = asked - {"headline"} | {*HEADLINE_ARMS}
    if "engine_xla" in asked:
        asked.add("keras_fit_xla")
    return [name for name in known if name in asked] + sorted(asked - {*OWN_ARMS, *PEER_ARMS})


def resize(workload: Workload, arguments: argparse.Namespace) -> Workload:
    """Returns the workload with the batch size and the number of examples that the flags set."""
    batch_size = arguments.global_batch_size or workload.global_batch_size
    wanted = arguments.num_examples or workload.num_examples
    if wanted < batch_size:
        raise UsageError(f"num_examples={wanted} is less than a batch of {batch_size}")
    num_examples = wanted - wanted % batch_size
    return dataclasses.replace(workload, global_batch_size=batch_size, num_examples=num_examples)


def make_task(arguments: argparse.Namespace, workload: Workload) -> Task:
    """Returns the task of a workload; `run_task` sets its directory."""
    return Task(
        workload=workload,
        directory=Path(),
        device=arguments.device,
        precision=arguments.precision,
        jit_compile=_JIT_COMPILE[arguments.jit_compile],
        num_devices=arguments.num_devices,
        seed=arguments.seed,
    )


def pythons_of(arms: Sequence[str], peers_python: str) -> dict[str, str]:
    """Returns arm to interpreter: the peers have an environment of their own, if it exists."""
    peers = Path(peers_python)
    # Not resolved: an environment's interpreter is a link, and finds its packages by its place.
    python = os.path.abspath(peers) if peers.exists() else sys.executable
    return {name: python if name in PEER_ARMS else sys.executable for name in arms}


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
        tries_threads=frozenset({*arms} - {*ARMS_AS_THEY_COME} if has_choice else ()),
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
