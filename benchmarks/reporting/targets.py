"""The project's targets of speed, as data, and whether records reach them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from benchmarks.reporting import stats

Record = Mapping[str, Any]

# Stands for the fastest correct one of PYTORCH_ARMS.
BEST_PYTORCH = "best PyTorch"
PYTORCH_ARMS = ("torch_eager", "torch_compile", "lightning")
# An arm of runs in bfloat16; if it was left out, fit in the float32 record of the same machine.
FIT_FLOAT32 = "keras_fit_float32"
# The engine on one batch that stays in memory.
RESIDENT = "engine_resident"

NOT_MEASURED = "not measured"
REACHED = "reached"


@dataclasses.dataclass(frozen=True)
class Target:
    """A ratio between the figures of two arms, to be reached.

    Attributes:
      workload: As `name_of` has it.
      arm: The arm of the numerator.
      over: The arm of the denominator.
      ratio: A minimum for "images_per_sec", a maximum for the other measures.
      measure: "images_per_sec", "startup_secs" or "peak_memory_bytes".
    """

    workload: str
    arm: str
    over: str
    ratio: float
    measure: str = "images_per_sec"

    @property
    def is_minimum(self) -> bool:
        """Whether `ratio` is a minimum."""
        return self.measure == "images_per_sec"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was measured for a target.

    Attributes:
      target: The target.
      over: Name of the arm of the denominator.
      measured: The ratio; None: not measured.
      interval: 95 %; None: the repeats do not give one.
      verdict: "reached", "missed by 3.2 %", or "not measured" with the reason.
    """

    target: Target
    over: str
    measured: float | None
    interval: tuple[float, float] | None
    verdict: str


def _row(workload: str, arm: str, **ratios: float) -> list[Target]:
    return [Target(workload, arm, _OVER[name], ratio) for name, ratio in ratios.items()]


_OVER = {
    "fit": "keras_fit",
    "fit_float32": FIT_FLOAT32,
    "tuned": "keras_fit_tuned",
    "tf_loop": "tf_loop",
    "pytorch": BEST_PYTORCH,
    "jax_scan": "jax_scan",
}

SPEED = (
    *_row("tiny", "engine", fit=5, tuned=1.9, tf_loop=0.95, pytorch=3),
    *_row("tiny", "engine_fast", fit=9, tuned=3.5, jax_scan=1.0),
    *_row("dense", "engine", fit=2.0, tuned=1.4, tf_loop=0.97, pytorch=2, jax_scan=0.85),
    *_row("dense", "engine_fast", fit=2.5, jax_scan=1.05),
    *_row("cnn", "engine", fit=1.1, tuned=1.05, tf_loop=0.98, pytorch=1.4, jax_scan=4),
    *_row("cnn-bf16", "engine", fit_float32=1.8, tuned=1.1, tf_loop=0.98, pytorch=1.4),
    *_row("lstm", "engine", fit=1.05, tuned=1.02, tf_loop=0.98, pytorch=1.0),
    *_row("lstm", "engine_fast", fit=1.5, pytorch=1.5),
)
WORKLOADS = ("tiny", "dense", "cnn", "cnn-bf16", "lstm", "resnet50", "transformer")
# Training on the pipeline's batches over training on one batch in memory.
INPUT = tuple(Target(name, "engine", RESIDENT, 0.97) for name in WORKLOADS)
STARTUP = tuple(Target(name, "engine", "keras_fit", 1.0, "startup_secs") for name in WORKLOADS)
MEMORY = tuple(Target(name, "engine", "keras_fit", 1.0, "peak_memory_bytes") for name in WORKLOADS)
# By how much the most expensive size may exceed the cheapest; see benchmarks/scaling.py.
FLAT_WITHIN = 0.03

_SUFFIXES = {"mixed_bfloat16": "-bf16", "mixed_float16": "-fp16", "tf32": "-tf32"}


def name_of(record: Record) -> str:
    """Returns a record's workload and settings that are not the default, as in its file's name.

    Examples: "cnn", "cnn-bf16", "cnn-noxla", "cnn-bf16-xla-x2".
    """
    task = record.get("task", {})
    name = record["workload"] + _SUFFIXES.get(task.get("precision", "float32"), "")
    if task.get("jit_compile") is not None:
        name += "-xla" if task["jit_compile"] else "-noxla"
    num_devices = task.get("num_devices", 1)
    return name if num_devices == 1 else f"{name}-x{num_devices}"


def evaluate(target: Target, records: Mapping[str, Record]) -> Outcome:
    """Compares a target with what was measured on one machine.

    Args:
      target: The target.
      records: By `name_of`, all of the same hardware.
    """
    record = records.get(target.workload)
    if target.over == RESIDENT:
        # A run of the workload `input` measures this alone, and has precedence.
        record = records.get(f"input-{target.workload}", record)
    if record is None:
        return Outcome(target, target.over, None, None, NOT_MEASURED)
    arm = record["arms"].get(target.arm)
    over, other = _other(target, record, records)
    missing = _why_missing(target.arm, arm) or _why_missing(over, other)
    if missing or arm is None or other is None:
        return Outcome(target, over, None, None, f"{NOT_MEASURED}: {missing}")
    measured, interval = _ratio(target, record, (arm, other), over)
    if measured is None:
        return Outcome(target, over, None, None, NOT_MEASURED)
    return Outcome(target, over, measured, interval, _verdict(target, measured))


def best_pytorch(record: Record) -> str | None:
    """Returns the fastest correct arm of PyTorch, or None."""
    arms = record["arms"]
    speeds = {
        name: arms[name]["images_per_sec"]["median"]
        for name in PYTORCH_ARMS
        if arms.get(name, {}).get("status") == "ok"
    }
    return max(speeds, key=lambda name: speeds[name]) if speeds else None


def _other(
    target: Target, record: Record, records: Mapping[str, Record]
) -> tuple[str, Mapping[str, Any] | None]:
    """Returns the name and the figures of the arm of the target's denominator."""
    if target.over == BEST_PYTORCH:
        name = best_pytorch(record)
        return (name, record["arms"][name]) if name else (BEST_PYTORCH, None)
    if target.over == FIT_FLOAT32 and FIT_FLOAT32 not in record["arms"]:
        float32 = records.get(target.workload.rpartition("-")[0], {"arms": {}})
        return "keras_fit of the float32 record", float32["arms"].get("keras_fit")
    return target.over, record["arms"].get(target.over)


def _why_missing(name: str, arm: Mapping[str, Any] | None) -> str:
    if arm is None:
        return f"{name} was not in the run"
    return "" if arm["status"] == "ok" else f"{name} is {arm['status'].replace('_', ' ')}"


def _ratio(
    target: Target, record: Record, arms: tuple[Any, Any], over: str
) -> tuple[float | None, tuple[float, float] | None]:
    """Returns the ratio and its interval; None for what is unknown."""
    if target.measure != "images_per_sec":
        arm, other = (arm.get(target.measure) for arm in arms)
        # The start is a difference of times: if it is not positive, noise was larger.
        is_known = arm is not None and other is not None and min(arm, other) > 0
        return (arm / other if is_known else None), None
    for ratio in record["ratios"]:
        if (ratio["arm"], ratio["over"]) == (target.arm, over):
            return ratio["median"], (ratio["low"], ratio["high"])
    medians = [arm["images_per_sec"]["median"] for arm in arms]
    if over not in record["arms"] or len(arms[0]["secs"]) != len(arms[1]["secs"]):
        return medians[0] / medians[1], None
    found = stats.compare(*([1 / secs for secs in arm["secs"]] for arm in arms))
    return found.median, (found.low, found.high)


def _verdict(target: Target, measured: float) -> str:
    missed_by = 1 - measured / target.ratio if target.is_minimum else measured / target.ratio - 1
    return (
        REACHED if missed_by <= 0 else f"missed by {max(missed_by, 0.001):.1%}".replace("%", " %")
    )
