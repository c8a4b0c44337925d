"""The flags of `python -m benchmarks.throughput`, and the workloads and arms that they ask for."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.hardware.utilization import PRECISIONS
from benchmarks.race import stopping
from benchmarks.race.workloads import WORKLOADS, Task, Workload

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
_JIT_COMPILE = {"auto": None, "true": True, "false": False}


class UsageError(ValueError):
    """A flag's value is not legal; the message is one line."""


def make_parser(description: str | None = None) -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput",
        description=description,
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
