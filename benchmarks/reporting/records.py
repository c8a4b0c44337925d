"""Records: all that a run has found, as JSON that says how it came about."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import RESULTS, ROOT
from benchmarks.race.accuracy import TARGETS, secs_to_accuracy
from benchmarks.race.harness import ArmResult, Plan
from benchmarks.race.workloads import Task
from benchmarks.reporting import stats
from gradloop.files import json_text, make_directory, write_atomically

SUFFIXES = {"mixed_bfloat16": "-bf16", "mixed_float16": "-fp16", "tf32": "-tf32"}
# What the roof is called that a precision has.
_ROOFS = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What a record says beside the results.

    Attributes:
      hardware: Short name for files, such as "cpu2".
      date: YYYY-MM-DD.
      command: As a person types it.
      environment: Of the harness: `gradloop.cli.run_folder.describe_environment()`.
      roof: `benchmarks.hardware.roof.measure_roof()`.
      flops_per_step: Of the model's matrix products and convolutions; None if it cannot be counted.
    """

    hardware: str
    date: str
    command: str
    environment: Mapping[str, Any]
    roof: Mapping[str, Any]
    flops_per_step: int | None


def make_record(
    task: Task,
    plan: Plan,
    results: Sequence[ArmResult],
    accuracies: Mapping[Path, float],
    circumstances: Circumstances,
) -> Record:
    """Returns the record of one race.

    Args:
      task: What was done.
      plan: How often.
      results: After the check of what is correct.
      accuracies: File of weights to test accuracy; empty where nobody measures it.
      circumstances: The rest.
    """
    workload = task.workload
    described = {key: value for key, value in task.to_dict().items() if key != "directory"}
    del described["workload"]
    config = dataclasses.asdict(workload)
    found = dataclasses.asdict(circumstances)
    identity = json_text([circumstances.environment, config, described])
    return {
        "workload": workload.name,
        "workload_config": config,
        "task": described,
        "num_repeats": max([len(result.secs) for result in results], default=0),
        "num_warmups": plan.num_warmups,
        "device": task.device,
        "hardware": found["hardware"],
        "date": found["date"],
        "command": found["command"],
        "environment": found["environment"],
        "fingerprint": hashlib.sha256(identity.encode()).hexdigest(),
        "roof": found["roof"],
        "flops_per_step": found["flops_per_step"],
        "steps_per_repeat": workload.steps_per_epoch * plan.num_epochs,
        "examples_per_repeat": workload.num_examples * plan.num_epochs,
        "arms": {r.name: describe_arm(r, task, plan, accuracies, circumstances) for r in results},
        "ratios": make_ratios(results),
    }


def describe_arm(
    result: ArmResult,
    task: Task,
    plan: Plan,
    accuracies: Mapping[Path, float],
    circumstances: Circumstances,
) -> dict[str, Any]:
    """Returns an arm's part of the record; raw samples also of an arm that is void."""
    raw = dataclasses.asdict(result)
    del raw["name"], raw["weights"], raw["joules"]
    if not result.is_ok:
        return raw
    images = task.workload.num_examples * plan.num_epochs
    steps = task.workload.steps_per_epoch * plan.num_epochs
    speeds = stats.summarize([images / secs for secs in result.secs])
    usecs = stats.summarize([1e6 * secs / steps for secs in result.secs])
    return raw | {
        "images_per_sec": dataclasses.asdict(speeds),
        "usecs_per_step": dataclasses.asdict(usecs),
        "share_of_roof": _share_of_roof(usecs.median / 1e6, task, circumstances),
        "startup_secs": _startup_secs(result),
        **_describe_accuracy(result, accuracies),
        "joules_per_image": _joules_per_image(result, plan, images),
    }


def _share_of_roof(secs_per_step: float, task: Task, circumstances: Circumstances) -> float | None:
    peaks = circumstances.roof.get("matmul_flops_per_sec", {})
    peak = peaks.get(_ROOFS.get(task.precision, task.precision))
    if peak is None or circumstances.flops_per_step is None:
        return None
    return float(circumstances.flops_per_step / secs_per_step / (peak * task.num_devices))


def _startup_secs(result: ArmResult) -> float:
    # What the first run takes more than the others is tracing and compiling.
    first = (result.warmup_secs or result.secs)[0]
    return (result.setup_secs or 0.0) + first - statistics.median(result.secs)


def _describe_accuracy(result: ArmResult, accuracies: Mapping[Path, float]) -> dict[str, Any]:
    if not accuracies or result.is_ceiling:
        return {"test_accuracies": None, "secs_to_accuracy": {str(t): None for t in TARGETS}}
    reached = [accuracies[path] for path in result.weights]
    secs = {str(target): secs_to_accuracy(result, reached, target) for target in TARGETS}
    return {"test_accuracies": reached, "secs_to_accuracy": secs}


def _joules_per_image(result: ArmResult, plan: Plan, images: int) -> float | None:
    counted = [joules for joules in result.joules[plan.num_warmups :] if joules is not None]
    return statistics.median(counted) / images if counted else None


def make_ratios(results: Sequence[ArmResult]) -> list[dict[str, Any]]:
    """Returns each arm's speed over that of each arm after it; of those that are correct."""
    ratios = []
    for arm, over in itertools.combinations([r for r in results if r.is_ok], 2):
        ratio = stats.compare(*([1 / secs for secs in r.secs] for r in (arm, over)))
        ratios.append({"arm": arm.name, "over": over.name, **dataclasses.asdict(ratio)})
    return ratios


def default_path(task: Task, hardware: str, date: str) -> Path:
    """Returns where a record belongs: what is pinned otherwise than by default is in its name."""
    name = task.workload.name + SUFFIXES.get(task.precision, "")
    if task.jit_compile is not None:
        name += "-xla" if task.jit_compile else "-noxla"
    if task.num_devices > 1:
        name += f"-x{task.num_devices}"
    return ROOT / RESULTS / f"{name}_{hardware}_{date}.json"


def write(record: Record, path: Path) -> None:
    """Writes a record in one go.

    Raises:
      ValueError: If the folder cannot be written to.
    """
    make_directory(path.parent)
    text = json_text(record, indent=1)
    # Samples, ratios and other small things on one line each.
    text = re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda found: " ".join(found.group().split()), text)
    write_atomically(path, lambda file: file.write(text + "\n"))
