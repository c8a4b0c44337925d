"""The text of docs/benchmarks.md and of the README's section, made from records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.race.correctness import REFERENCE
from benchmarks.reporting import conclusions, gpu_tables, notes, other_tables, tables, targets
from benchmarks.reporting.races import Race, Record, name_of, when
from benchmarks.reporting.tables import number

_HEAD = """\
<!-- Made by `python -m benchmarks.reporting.report` from benchmarks/results: do not edit. -->
# Benchmarks

An *arm* is a contender in a race: one way to train the same net. All arms of a race start from the
same weights and train on the same batches, in processes of their own. Arms that are compared run in
short bursts that take turns, seconds apart: a ratio is the median over such pairs, with a 95 %
bootstrap interval over them. A race goes on until the intervals are narrow or its time is up; the
table of records says which. A ratio is named if its interval is 20 % wide or less in one run.

A run is one call of `fit` over the workload's examples: 1,875 steps of tiny, 468 of dense, 80 of
cnn, 50 of lstm, 16 of wide, 5 of transformer, 2 of resnet50. What such a call costs once weighs the
more the fewer the steps are.

fit trains on the batches that Keras makes of arrays, from a dataset that is made once for all runs,
as the engine's is: of pixels as float32 numbers in [0, 1], as people pass them to it, where the
engine and all others have the bytes and divide them in the step, in a quarter of the memory. It
runs without tf.data's autotuner, whose thread may hold up the end of an epoch until it wakes, for
up to as long as the epoch has taken: `fit(x, y)` takes that much longer, or does not, by chance.

Ratios move with the hour and the machine by more than the interval of one run. So all runs of a
race with the same number of cores and the same versions count, on whatever processor: a ratio is
the median of the runs' medians, beside their range and the interval of the newest run. The figures
of each arm are those of the run with the most arms; the table of records names the processors.

There are three classes of bits (docs/parity.md). An arm with the bits of fit must end with the
weights of `keras_fit`, one with the bits of `fit(jit_compile=True)` with those of `keras_fit_xla`,
bit for bit; the others, which are free, must have the mean loss of fit within 2 % (5 % in a lower
precision), in a training without dropout, whose masks differ, and within 10 % with it. An arm that
fails this check is void, and its speed is not shown.

`engine`, `engine_resident`, `keras_fit` and `keras_fit_float32` train with defaults.
`engine_tuned`, `engine_xla` and `engine_free` have the settings that `--tune` keeps in the class of
fit's bits, in that of `fit(jit_compile=True)`, and in the free one, found in the run. All other
arms have one thread or their framework's default, whichever was faster before the race, in
processes that took turns, where their settings name what was tried; in runs of before, the default.
`keras_fit_tuned` and `keras_fit_xla` have the fastest of some `steps_per_execution`, too: up to all
of an epoch's, but for runs of before 2026-12-01 04:00, which had 1, 8, 32, 128 or 512 where there
are as many. `engine_free` may have bfloat16 and XLA, which are settings of fit too: over an arm
that is not fit, it counts only in the race's own precision. `tf_loop` has no XLA, and `jax_scan` is
such a loop with it. The number of threads may change bits: an arm that must have those of fit keeps
the default where it does.

- *Of the roof*: the matrix operations per second of the training, as a share of the most that the
  machine's matrix products reached in the same run. The operations of a step (2 m n k for a product
  of m x k and k x n) are counted in the model's graph.
- *Start*: the time to build the model, plus the time that the first run takes beyond the median one
  (tracing and compiling). Of arms that find settings by trial, it includes the trials.
- *Peak memory*: the largest resident size of the arm's process.

`make bench-gpu` measures a machine with GPUs; a record of it has tables of its own here, with these
columns:

- *Of the data sheet*, *of the measured peak*: the model's matrix operations per second, as a share
  of what the GPU's maker prints, and of the most that its matrix products reached in the same run.
- *Device idle*: the share of the wall time in which neither a kernel nor a copy ran on a GPU, from
  TensorFlow's profiler, in a run of the engine of its own; the mean over the GPUs.
- *Reduce*: the share in which a collective operation ran, from the same profile. It includes the
  wait for the slowest GPU, and other kernels may run meanwhile.
- *First run*: how many seconds the first run takes beyond the median one (tracing and compiling).
- XLA under MirroredStrategy compiles the engine's replica function. fit fails with it, and runs
  without: the two then have other bits, and only the losses are compared.
"""
_NO_RECORDS = "There are no records of races yet: run `make bench`."


def rank(key: tuple[str, str]) -> tuple[str, int, str]:
    """Returns the key to sort records by: the machine, the order of the targets, the name."""
    name, hardware = key
    known = targets.WORKLOADS
    return hardware, known.index(name) if name in known else len(known), name


def make_page(
    raced: Mapping[tuple[str, str], Race], images: Mapping[str, Record], written: str
) -> str:
    """Returns the text of docs/benchmarks.md.

    Args:
      raced: By name and hardware, in the order of the page.
      images: File name of each chart, in the folder `images` beside the page, to its record.
      written: By hand, on targets that are missed; see `notes`.
    """
    parts = [_HEAD, *([] if any(map(_shown, by_hardware(raced).values())) else [_NO_RECORDS])]
    reasons = notes.parse(written)
    for hardware, here in by_hardware(raced).items():
        found = notes.misses(here, _not_raced(raced, hardware))
        parts += [f"## Targets: {hardware}", _targets_part(here)] if here else []
        if found:
            parts += [f"## Missed, and why: {hardware}", notes.missed_part(found, reasons)]
        if here:
            parts += [f"## Speeds: {hardware}", tables.speeds_table(_shown(here))]
            of_arms = {name: race for name, race in here.items() if "arms" in race.newest}
            parts += [f"## Records: {hardware}", tables.records_table(of_arms)]
    pictures = {id(record): name for name, record in images.items()}
    for race in raced.values():
        parts += _record_parts(race.fullest, pictures.get(id(race.fullest)))
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def make_readme_part(raced: Mapping[tuple[str, str], Race]) -> str:
    """Returns the README's section: for each machine the conclusions and a table of ratios."""
    parts = []
    for here in by_hardware(raced).values():
        shown = _shown(here)
        if shown:
            parts += [conclusions.conclude(shown), conclusions.ratios_table(shown)]
            runs = [run for race in shown.values() for run in race.runs]
            parts += [_machines([run for run in runs if REFERENCE in run["arms"]] or runs)]
    parts = parts or [_NO_RECORDS]
    parts.append(
        "The method, the targets, other frameworks, all figures and charts: "
        "[docs/benchmarks.md](docs/benchmarks.md)."
    )
    return "\n\n".join(filter(None, parts))


def by_hardware(raced: Mapping[tuple[str, str], Race]) -> dict[str, dict[str, Race]]:
    """Returns hardware to name to race; records that are none have no place there."""
    result: dict[str, dict[str, Race]] = {}
    for (name, hardware), race in raced.items():
        of_hardware = result.setdefault(hardware, {})
        if {"arms", "inference"} & race.newest.keys():
            of_hardware[name] = race
    return result


def find_unexplained(raced: Mapping[tuple[str, str], Race], written: str) -> list[str]:
    """Returns a line for each target that is missed without a reason in the notes."""
    reasons = notes.parse(written)
    return [
        f"{miss.workload}: {miss.text}"
        for hardware, here in by_hardware(raced).items()
        for miss in notes.misses(here, _not_raced(raced, hardware))
        if not miss.has_reason(reasons)
    ]


def _not_raced(raced: Mapping[tuple[str, str], Race], hardware: str) -> list[Record]:
    """Returns the newest records of scaling on this hardware."""
    return [
        race.newest for (_, at), race in raced.items() if at == hardware and "images" in race.newest
    ]


def _shown(raced: Mapping[str, Race]) -> dict[str, Race]:
    """Returns the races of whole arms: those of the input compare few, and have their targets."""
    return {
        name: race
        for name, race in raced.items()
        if "arms" in race.newest and not name.startswith("input-")
    }


def _targets_part(raced: Mapping[str, Race]) -> str:
    groups = {
        "pipeline over resident batches (0.97 or more)": targets.INPUT,
        "start over fit's (1 or less)": targets.STARTUP,
        "peak memory over fit's (1 or less)": targets.MEMORY,
        "predict over Keras's (2 or more)": targets.PREDICT,
        "evaluate over Keras's (3 or more)": targets.EVALUATE,
    }
    others = {
        title: [targets.evaluate(target, raced) for target in group]
        for title, group in groups.items()
    }
    speeds = [targets.evaluate(target, raced) for target in targets.SPEED_TARGETS]
    table = tables.other_targets_table(others)
    return "\n\n".join([tables.speed_targets_table(speeds), table, _count_targets(raced)])


def _count_targets(raced: Mapping[str, Race]) -> str:
    outcomes = [targets.evaluate(target, raced) for target in targets.EVERY]
    measured = [outcome for outcome in outcomes if outcome.is_decided]
    num_missed = sum(outcome.is_missed for outcome in measured)
    return (
        f"Reached: {len(measured) - num_missed} of the {len(measured)} targets that were measured, "
        "with those of the second table."
    )


def _record_parts(record: Record, picture: str | None) -> list[str]:
    name = name_of(record)
    parts = [f"## {name}: {record['hardware']}", _machine(record), _command(record)]
    if "arms" not in record:
        return [*parts, *_other_parts(record)]
    parts += [f"![images/s of each arm](images/{picture})"] if picture else []
    parts += [tables.arms_table(record), tables.reasons(record), _roof(record)]
    chosen = tables.settings(record)
    parts += ["Settings that the arms chose:\n\n" + chosen] if chosen else []
    parts += [tables.ratios_table(record)] if record["ratios"] else []
    return [part for part in parts if part]


def _other_parts(record: Record) -> list[str]:
    if "cells" in record:
        return [gpu_tables.gpu_tables(record)]
    if "inference" in record:
        return [other_tables.inference_table(record)]
    if "memory_arms" in record:
        return [other_tables.memory_tables(record)]
    if "gallery" in record:
        return [other_tables.gallery_table(record)]
    if "accuracies" in record:
        return [other_tables.learning_table(record)]
    return [other_tables.scaling_tables(record)]


def _machines(records: Sequence[Record]) -> str:
    """Returns a line on where and when all of some records were made."""
    environments = [record["environment"] for record in records]
    cores = environments[0].get("num_cores", "?")
    processors = sorted({str(one.get("processor", "?")) + _gpus(one) for one in environments})
    versions = sorted({_versions(one) for one in environments})
    dates = sorted({record["date"] for record in records})
    return (
        f"{cores} cores of {', '.join(processors)}; {'; '.join(versions)}; "
        f"{' to '.join(dict.fromkeys([dates[0], dates[-1]]))}. Each record has its machine, commit "
        "and time."
    )


def _versions(environment: Mapping[str, Any]) -> str:
    names = {"TensorFlow": "tensorflow", "Keras": "keras", "Python": "python"}
    return ", ".join(f"{name} {environment.get(key, '?')}" for name, key in names.items())


def _machine(record: Record) -> str:
    environment = record["environment"]
    changed = ", with changes" if environment.get("git_has_changes") else ""
    commit = str(environment.get("git_commit") or "unknown")[:12]
    repeats = f", {record['num_repeats']} counted repeats" if "num_repeats" in record else ""
    return (
        f"{environment.get('num_cores', '?')} cores of {environment.get('processor', '?')}"
        f"{_gpus(environment)}; {_versions(environment)}; commit {commit}{changed}; "
        f"{when(record)}{repeats}."
    )


def _gpus(environment: Mapping[str, Any]) -> str:
    models = [device.get("model") for device in environment.get("physical_devices", [])]
    names = [str(model) for model in models if model]
    return f", {len(names)} x {names[0]}" if names else ""


def _command(record: Record) -> str:
    return f"```\n{record['command']}\n```"


def _roof(record: Record) -> str:
    roof = record.get("roof")
    if not roof or not record.get("flops_per_step"):
        return ""
    peaks = ", ".join(
        f"{number(value / 1e9)} GFLOP/s in {precision}"
        for precision, value in roof["matmul_flops_per_sec"].items()
    )
    return (
        f"Roof: {peaks}; memory {number(roof['copy_bytes_per_sec'] / 1e9)} GB/s. A step has "
        f"{number(record['flops_per_step'] / 1e6)} million matrix operations."
    )
