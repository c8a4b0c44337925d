"""The text of docs/benchmarks.md and of the README's section, made from records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.reporting import conclusions, gpu_tables, tables, targets
from benchmarks.reporting.tables import number
from benchmarks.reporting.targets import Record, name_of

_HEAD = """\
<!-- Made by `python -m benchmarks.reporting.report` from benchmarks/results: do not edit. -->
# Benchmarks

An *arm* is a contender in a race: one way to train the same net. All arms of a race start from the
same weights and train on the same batches. Each runs in a process of its own, in turn with the
others (A B C, C B A, ...). Warm-up runs do not count. Figures are medians and quartiles over the
counted repeats. A ratio compares two medians and has a 95 % bootstrap interval over the repeats; a
winner is named only if that interval excludes 1 and the quartiles do not overlap.

Arms that claim fit's numbers must end with fit's weights, bit for bit; the others must have fit's
mean loss within 2 %. An arm that fails this check is void, and its speed is not shown.

- *Of the roof*: the matrix operations per second of the training, as a share of the most that the
  machine's matrix products reached in the same run. The operations of a step (2 m n k for a product
  of m x k and k x n) are counted in the model's graph.
- *Start*: the time to build the model, plus the time that the first run takes beyond the median one
  (tracing and compiling).
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
_NO_RECORDS = "There are no records yet: run `make bench`."


def rank(key: tuple[str, str]) -> tuple[str, int, str]:
    """Returns the key to sort records by: the machine, the order of the targets, the name."""
    name, hardware = key
    known = targets.WORKLOADS
    return hardware, known.index(name) if name in known else len(known), name


def make_page(records: Sequence[Record], images: Mapping[str, Record], notes: str) -> str:
    """Returns the text of docs/benchmarks.md.

    Args:
      records: In the order of the page.
      images: File name of each chart, in the folder `images` beside the page, to its record.
      notes: Hand-written, on targets that are missed.
    """
    by_hardware = _by_hardware(records)
    parts = [_HEAD, *([] if records else [_NO_RECORDS])]
    for hardware, raced in by_hardware.items():
        parts += [f"## Targets: {hardware}", _targets_part(raced)]
    said = [notes, *(_record_notes(record) for record in records)]
    if any(said):
        parts += ["## Why targets are missed", *filter(None, said)]
    pictures = {id(record): name for name, record in images.items()}
    for record in records:
        parts += _record_parts(record, pictures.get(id(record)))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def make_readme_part(records: Sequence[Record]) -> str:
    """Returns the README's section: for each machine a table of speeds and the conclusions."""
    parts = [] if records else [_NO_RECORDS]
    for raced in _by_hardware(records).values():
        first = next(iter(raced.values()))
        # Races of the input compare few arms, and the page has them.
        shown = {name: record for name, record in raced.items() if not name.startswith("input-")}
        parts += [_machine(first), tables.speeds_table(shown), conclusions.conclude(shown)]
    parts.append(
        "The method, the targets, all figures and charts: [docs/benchmarks.md](docs/benchmarks.md)."
    )
    return "\n\n".join(filter(None, parts))


def _by_hardware(records: Sequence[Record]) -> dict[str, dict[str, Record]]:
    result: dict[str, dict[str, Record]] = {}
    for record in records:
        if "arms" in record:
            result.setdefault(record["hardware"], {})[name_of(record)] = record
    return result


def _targets_part(records: Mapping[str, Record]) -> str:
    groups = {
        "pipeline over resident batches (0.97 or more)": targets.INPUT,
        "start over fit's (1 or less)": targets.STARTUP,
        "peak memory over fit's (1 or less)": targets.MEMORY,
    }
    others = {
        title: [targets.evaluate(target, records) for target in group]
        for title, group in groups.items()
    }
    speeds = [targets.evaluate(target, records) for target in targets.SPEED]
    return "\n\n".join(
        [
            tables.speed_targets_table(speeds),
            tables.other_targets_table(others),
            _count_targets(records),
        ]
    )


def _count_targets(records: Mapping[str, Record]) -> str:
    every = (*targets.SPEED, *targets.INPUT, *targets.STARTUP, *targets.MEMORY)
    outcomes = [targets.evaluate(target, records) for target in every]
    measured = [outcome for outcome in outcomes if outcome.measured is not None]
    num_reached = sum(outcome.verdict == targets.REACHED for outcome in measured)
    return (
        f"Reached: {num_reached} of the {len(measured)} targets that were measured, with those of "
        "input, start and memory."
    )


def _record_notes(record: Record) -> str:
    notes = record.get("notes") or ""
    text = notes if isinstance(notes, str) else "\n".join(f"- {note}" for note in notes)
    return f"**{name_of(record)}**: {text}" if text else ""


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
    return [
        tables.learning_table(record) if "accuracies" in record else tables.scaling_tables(record)
    ]


def _machine(record: Record) -> str:
    environment = record["environment"]
    changed = ", with changes" if environment.get("git_has_changes") else ""
    commit = str(environment.get("git_commit") or "unknown")[:12]
    repeats = f", {record['num_repeats']} counted repeats" if "num_repeats" in record else ""
    return (
        f"{environment.get('num_cores', '?')} cores of {environment.get('processor', '?')}"
        f"{_gpus(environment)}; TensorFlow {environment.get('tensorflow', '?')}, Keras "
        f"{environment.get('keras', '?')}, Python {environment.get('python', '?')}; commit "
        f"{commit}{changed}; {record['date']}{repeats}."
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
