"""Records: all that a run found, as JSON that says how it came about."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import itertools
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import RESULTS, ROOT
from benchmarks.hardware.utilization import ROOF_NAMES, model_flops_utilization
from benchmarks.race.harness import ArmResult, Outcome, Plan
from benchmarks.race.workloads import Task
from benchmarks.reporting import stats
from benchmarks.reporting.races import name_of
from gradloop.files import json_text, make_directory, write_atomically

# Test accuracies to which the time is recorded.
ACCURACIES = (0.97, 0.99)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What a record says besides the results.

    Attributes:
      hardware: `benchmarks.hardware.devices.short_name()`.
      date: YYYY-MM-DD.
      time: HHMM.
      command: As a person types it.
      environment: `gradloop.engine.runtime.describe_environment()` of the harness.
      roof: `benchmarks.hardware.roof.measure_roof()`.
      flops_per_step: Of the model's matrix products and convolutions; None if not countable.
    """

    hardware: str
    date: str
    time: str
    command: str
    environment: Mapping[str, Any]
    roof: Mapping[str, Any]
    flops_per_step: int | None


def describe_run(hardware: str, command: str) -> dict[str, Any]:
    """Returns what every record has: the machine, date, time, command and environment.

    Args:
      hardware: See `Circumstances`.
      command: As a person types it.
    """
    from gradloop.engine.runtime import describe_environment

    now = datetime.datetime.now()
    return {
        "hardware": hardware,
        "date": now.date().isoformat(),
        "time": f"{now:%H%M}",
        "command": command,
        "environment": describe_environment(),
    }


def fingerprint(*parts: Any) -> str:
    """Returns a digest of what a speed depends on: runs that have the same one are comparable."""
    return hashlib.sha256(json_text(list(parts)).encode()).hexdigest()


def make_record(
    task: Task,
    plan: Plan,
    outcome: Outcome,
    accuracies: Mapping[Path, float],
    circumstances: Circumstances,
) -> dict[str, Any]:
    """Returns the record of one race.

    Args:
      task: What the arms did.
      plan: How often they did it.
      outcome: After `correctness.void_wrong_arms`.
      accuracies: File of weights to test accuracy; empty where accuracy is not measured.
      circumstances: The rest.
    """
    workload, results = task.workload, outcome.results
    described = {key: value for key, value in task.to_dict().items() if key != "directory"}
    del described["workload"]
    config = dataclasses.asdict(workload)
    found = dataclasses.asdict(circumstances)
    return {
        "workload": workload.name,
        "workload_config": config,
        "task": described,
        "num_repeats": max([len(result.secs) for result in results], default=0),
        "num_warmups": plan.num_warmups,
        "stopped_by": outcome.stopped_by,
        "device": task.device,
        "hardware": found["hardware"],
        "date": found["date"],
        "time": found["time"],
        "command": found["command"],
        "environment": found["environment"],
        "fingerprint": fingerprint(circumstances.environment, config, described),
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
    """Returns an arm's part of the record; a void arm has its raw samples alone."""
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
    return model_flops_utilization(
        circumstances.flops_per_step,
        secs_per_step,
        peaks.get(ROOF_NAMES[task.precision]),
        task.num_devices,
    )


def _startup_secs(result: ArmResult) -> float:
    # The first run takes longer than the others because it traces and compiles.
    first = (result.warmup_secs or result.secs)[0]
    return (result.setup_secs or 0.0) + first - statistics.median(result.secs)


def _describe_accuracy(result: ArmResult, accuracies: Mapping[Path, float]) -> dict[str, Any]:
    if not accuracies or result.is_ceiling:
        return {"test_accuracies": None, "secs_to_accuracy": {str(a): None for a in ACCURACIES}}
    reached = [accuracies[path] for path in result.weights]
    secs = {str(target): secs_to_accuracy(result, reached, target) for target in ACCURACIES}
    return {"test_accuracies": reached, "secs_to_accuracy": secs}


def secs_to_accuracy(result: ArmResult, accuracies: Sequence[float], target: float) -> float | None:
    """Returns the seconds of setup and training until an accuracy is first seen, or None.

    None: it was not reached in the first runs, after each of which it was measured. One-time costs
    such as compiling count: they are part of the setup or of the first run.

    Args:
      result: Of the arm.
      accuracies: After each of its `kept_runs`.
      target: The accuracy to reach.
    """
    secs = list(itertools.accumulate([*result.warmup_secs, *result.secs]))
    before = -1
    for index, accuracy in zip(result.kept_runs, accuracies, strict=True):
        if accuracy >= target:
            # Unless there were runs between, one of which may have reached it.
            return (result.setup_secs or 0.0) + secs[index] if index == before + 1 else None
        before = index
    return None


def _joules_per_image(result: ArmResult, plan: Plan, images: int) -> float | None:
    counted = [joules for joules in result.joules[plan.num_warmups :] if joules is not None]
    return statistics.median(counted) / images if counted else None


def make_ratios(results: Sequence[ArmResult]) -> list[dict[str, Any]]:
    """Returns the speed of each correct arm over that of each correct arm after it."""
    ratios = []
    for arm, over in itertools.combinations([r for r in results if r.is_ok], 2):
        ratio = stats.compare(*([1 / secs for secs in r.secs] for r in (arm, over)))
        ratios.append({"arm": arm.name, "over": over.name, **dataclasses.asdict(ratio)})
    return ratios


def default_path(record: Mapping[str, Any]) -> Path:
    """Returns its place: benchmarks/results/<name>_<hardware>_<YYYY-MM-DD>T<HHMM>.json."""
    when = f"{record['date']}T{record['time']}"
    return ROOT / RESULTS / f"{name_of(record)}_{record['hardware']}_{when}.json"


def write(record: Mapping[str, Any], path: Path) -> None:
    """Writes a record atomically; makes the folder.

    Raises:
      ValueError: If the folder cannot be written to.
    """
    make_directory(path.parent)
    text = json_text(record, indent=1)
    # Each list or object that holds no other one goes on one line.
    text = re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda found: " ".join(found.group().split()), text)
    write_atomically(path, lambda file: file.write(text + "\n"))
