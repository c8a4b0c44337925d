"""Races: the records of one comparison, which may have run several times, and what they agree on.

A ratio moves with the hour and the machine, by more than the interval within one run says. So runs
that are comparable count together: a ratio is the median of the runs' ratios, beside their range.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.reporting.stats import MAX_WIDTH, TOO_WIDE

Record = Mapping[str, Any]
NOT_MEASURED = "not measured"
NO_RATIO = f"no ratio: interval wider than {MAX_WIDTH:.0%}".replace("%", " %")

# Stand for the fastest correct one of several arms of a run.
BEST_PYTORCH = "best PyTorch"
BEST_FIT = "best tuned fit"
_BEST_OF = {
    BEST_PYTORCH: ("torch_eager", "torch_compile", "lightning"),
    BEST_FIT: ("keras_fit_tuned", "keras_fit_xla"),
}
SPEED = "images_per_sec"
# What a record of benchmarks.inference compares with Keras's.
INFERENCE = ("predict", "evaluate")


_SUFFIXES = {"mixed_bfloat16": "-bf16", "mixed_float16": "-fp16", "tf32": "-tf32"}


@dataclasses.dataclass(frozen=True)
class Race:
    """Comparable runs of one comparison on machines of one size.

    Attributes:
      runs: Oldest first: same workload, number of cores or GPU, and versions as the newest.
      others: Runs of the same name that are not comparable with the newest.
    """

    runs: tuple[Record, ...]
    others: tuple[Record, ...] = ()

    @property
    def newest(self) -> Record:
        """The newest run."""
        return self.runs[-1]

    @property
    def fullest(self) -> Record:
        """The run with the most correct arms, or custom steps; of several, the newest."""
        return max(reversed(self.runs), key=_num_correct)


@dataclasses.dataclass(frozen=True)
class Found:
    """A ratio between two arms, over the runs of a race.

    Attributes:
      over: The arm of the denominator: for `BEST_PYTORCH` and the like, which one it was.
      median: Of the runs' medians; None: `why` says why there is none.
      range: Least and largest of the runs' medians.
      num_runs: How many have it.
      num_processors: On how many kinds of processor.
      interval: 95 %, of the newest run that has it; None: the measure has none.
      why: "", or why there is no ratio.
    """

    over: str
    median: float | None = None
    range: tuple[float, float] | None = None
    num_runs: int = 0
    num_processors: int = 0
    interval: tuple[float, float] | None = None
    why: str = NOT_MEASURED

    @property
    def spread(self) -> tuple[float, float] | None:
        """The range of the runs, with the interval if there is one run alone; None: one number."""
        ends = [*(self.range or ()), *((self.interval or ()) if self.num_runs == 1 else ())]
        return (min(ends), max(ends)) if len(set(ends)) > 1 else None


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


def group(records: Iterable[Record]) -> dict[tuple[str, str], Race]:
    """Returns the races, by name and hardware.

    Args:
      records: In any order.
    """
    found: dict[tuple[str, str], list[Record]] = {}
    for record in sorted(records, key=when):
        found.setdefault((name_of(record), record["hardware"]), []).append(record)
    return {key: _race(runs) for key, runs in found.items()}


def when(record: Record) -> str:
    """Returns the date and, where it has one, the time of a record: "2026-11-28 22:15"."""
    time = record.get("time", "")
    return f"{record['date']} {time[:2]}:{time[2:]}".rstrip(": ")


def _race(runs: Sequence[Record]) -> Race:
    same = [comparable(record) == comparable(runs[-1]) for record in runs]
    chosen, others = (
        tuple(record for record, is_same in zip(runs, same, strict=True) if is_same is wanted)
        for wanted in (True, False)
    )
    return Race(chosen, others)


def comparable(record: Record) -> tuple[Any, ...]:
    """Returns what two runs must have in common for their ratios to be of one kind."""
    environment = record["environment"]
    # Not the processor: by how much a ratio moves from one to another is what a range is to show.
    of_machine = ("num_cores", "tensorflow", "keras", "python")
    of_record = ("workload_config", "task", "device", "num_examples", "global_batch_size")
    return (
        *(environment.get(name) for name in of_machine),
        *(record.get(name) for name in of_record),
    )


def ratio(race: Race | None, arm: str, over: str, measure: str = SPEED) -> Found:
    """Returns a ratio between two arms over the runs of a race.

    Args:
      race: None: there is no record.
      arm: Of the numerator.
      over: Of the denominator, `BEST_PYTORCH` or `BEST_FIT`.
      measure: `SPEED`, "startup_secs", "peak_memory_bytes", or one of `INFERENCE`.
    """
    if race is None:
        return Found(over)
    of_runs = [(record, _of_run(record, arm, over, measure)) for record in race.runs]
    measured = [(record, found) for record, found in of_runs if found.median is not None]
    if not measured:
        return of_runs[-1][1]
    if all(found.why for _, found in measured):
        return dataclasses.replace(measured[-1][1], median=None, range=None, num_runs=0)
    # One that is too wide to be named alone counts with the others: without it, the steadier of
    # two speeds would decide.
    medians = [found.median for _, found in measured if found.median is not None]
    return dataclasses.replace(
        measured[-1][1],
        median=statistics.median(medians),
        range=(min(medians), max(medians)),
        num_runs=len(medians),
        num_processors=len({record["environment"].get("processor") for record, _ in measured}),
        why="",
    )


def precision_of(record: Record, arm: str) -> str:
    """Returns the precision of an arm of a run: `engine_free` may have found another than asked."""
    settings = record["arms"].get(arm, {}).get("settings") or {}
    return str(settings.get("precision", record["task"]["precision"]))


def _of_run(record: Record, arm: str, over: str, measure: str) -> Found:
    if measure in INFERENCE:
        of_task = record.get("inference", {}).get(measure)
        return Found(over) if of_task is None else _named(over, of_task["ratio"])
    arms = record.get("arms", {})
    over = _best(arms, over)
    missing = _why_missing(arm, arms) or _why_missing(over, arms)
    missing = missing or (measure == SPEED and _why_unlike(record, arm, over))
    if missing:
        return Found(over, why=f"{NOT_MEASURED}: {missing}")
    if measure != SPEED:
        one, other = (arms[name].get(measure) for name in (arm, over))
        # The start is a difference of times: if it is not positive, noise was larger.
        is_known = one is not None and other is not None and min(one, other) > 0
        return _single(over, one / other) if is_known else Found(over)
    for found in record["ratios"]:
        if (found["arm"], found["over"]) == (arm, over):
            return _named(over, found)
        if (found["arm"], found["over"]) == (over, arm):
            return _named(over, _inverse(found))
    return Found(over)


def _why_unlike(record: Record, arm: str, over: str) -> str:
    """Returns why two arms are no match; what is free may have fewer bits than fit, and says so."""
    one, other = (precision_of(record, name) for name in (arm, over))
    is_match = one == other or over.startswith("keras_fit")
    return "" if is_match else f"{one} beside {other}"


def _named(over: str, found: Mapping[str, Any]) -> Found:
    """Returns a ratio with its interval, and whether that is too wide to be named alone."""
    single = _single(over, found["median"], (found["low"], found["high"]))
    is_wide = found.get("verdict") == TOO_WIDE
    return dataclasses.replace(single, why=NO_RATIO) if is_wide else single


def _single(over: str, median: float, interval: tuple[float, float] | None = None) -> Found:
    return Found(over, median, (median, median), 1, 1, interval, "")


def _inverse(found: Mapping[str, Any]) -> dict[str, Any]:
    inverse = {"median": "median", "low": "high", "high": "low"}
    return {name: 1 / found[of] for name, of in inverse.items()} | {"verdict": found["verdict"]}


def _best(arms: Mapping[str, Any], over: str) -> str:
    """Returns the fastest correct arm of a group, or the name itself."""
    speeds = {
        name: arms[name][SPEED]["median"]
        for name in _BEST_OF.get(over, ())
        if arms.get(name, {}).get("status") == "ok"
    }
    return max(speeds, key=lambda name: speeds[name]) if speeds else over


def _why_missing(name: str, arms: Mapping[str, Any]) -> str:
    if name not in arms:
        return f"{name} was not in the run"
    status = str(arms[name]["status"])
    return "" if status == "ok" else f"{name} is {status.replace('_', ' ')}"


def _num_correct(record: Record) -> int:
    num_arms = sum(arm["status"] == "ok" for arm in record.get("arms", {}).values())
    return num_arms + len(record.get("gallery", ()))
