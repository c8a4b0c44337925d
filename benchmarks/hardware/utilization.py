"""The share of a device's peak that a speed reaches, and the combinations of a GPU run."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.hardware import data_sheets

# Precision of a task to its name in `roof.measure_roof`.
ROOF_NAMES = {
    "float32": "float32",
    "tf32": "tf32",
    "mixed_bfloat16": "bfloat16",
    "mixed_float16": "float16",
}
PRECISIONS = tuple(ROOF_NAMES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination of the matrix.

    Attributes:
      precision: As in `Task`.
      jit_compile: Whether the engine and fit use XLA; by itself, fit turns it on for one GPU.
      global_batch_size: Examples per step, over all GPUs.
      num_devices: Number of GPUs.
      deterministic: Whether operations are deterministic.
      mirrors: Whether MirroredStrategy is used on one GPU, too.
      seeks_memory: Whether all that is asked is if the batch fits into memory: nothing is profiled,
        and no other framework takes memory.
    """

    precision: str
    jit_compile: bool
    global_batch_size: int
    num_devices: int = 1
    deterministic: bool = False
    mirrors: bool = False
    seeks_memory: bool = False


def make_matrix(precisions: Sequence[str], batch_sizes: Sequence[int]) -> list[Cell]:
    """Returns every combination on one GPU, without and with XLA."""
    return [
        Cell(precision=precision, jit_compile=jit_compile, global_batch_size=batch_size)
        for precision, jit_compile, batch_size in itertools.product(
            precisions, (False, True), batch_sizes
        )
    ]


def make_questions(precision: str, batch_size: int) -> list[Cell]:
    """Returns what else is asked of one GPU: what deterministic operations cost, and replicas.

    Replicas are asked without XLA and with it, which then compiles the replica function.
    """
    plain = Cell(precision=precision, jit_compile=False, global_batch_size=batch_size)
    return [
        dataclasses.replace(plain, deterministic=True),
        dataclasses.replace(plain, mirrors=True),
        dataclasses.replace(plain, mirrors=True, jit_compile=True),
    ]


def find_largest_batch(works: Callable[[int], bool], start: int, limit: int) -> int | None:
    """Returns the largest of `start`, twice that, ... up to `limit` that works; None: not even it.

    Args:
      works: Whether a batch size fits into the memory of the device.
      start: The first size.
      limit: No larger one is tried.
    """
    largest = None
    while start <= limit and works(start):
        largest, start = start, 2 * start
    return largest


def make_scaling(
    num_gpus: int,
    precision: str,
    batch_size: int,
    *,
    strong: bool = False,
    jit_compile: bool = False,
) -> list[Cell]:
    """Returns runs on 1, 2, 4, ... and all GPUs.

    Args:
      num_gpus: How many there are.
      precision: Of all.
      batch_size: Examples a step for each GPU; for strong scaling, for all of them together.
      strong: Whether more GPUs share the same batch.
      jit_compile: Whether XLA compiles the step, and on several GPUs the replica function.
    """
    counts = {2**power for power in range(num_gpus.bit_length())} | {num_gpus}
    return [
        Cell(
            precision=precision,
            jit_compile=jit_compile,
            global_batch_size=batch_size if strong else count * batch_size,
            num_devices=count,
        )
        for count in sorted(count for count in counts if 1 <= count <= num_gpus)
    ]


def efficiencies(images_per_sec: Mapping[int, float | None]) -> list[dict[str, Any]]:
    """Returns for each number of GPUs its speed over that many times the speed of one GPU.

    Args:
      images_per_sec: By the number of GPUs; None where the run failed.
    """
    one = images_per_sec.get(1)
    return [
        {
            "num_devices": count,
            "images_per_sec": speed,
            "efficiency": speed / (count * one) if speed and one else None,
        }
        for count, speed in images_per_sec.items()
    ]


def model_flops_utilization(
    flops_per_step: int | None,
    secs_per_step: float | None,
    peak_flops_per_sec: float | None,
    num_devices: int = 1,
) -> float | None:
    """Returns the share of the peak that the model's own matrix operations reach.

    Args:
      flops_per_step: Of the model's graph, over all devices; other operations and recomputation
        do not count.
      secs_per_step: Measured.
      peak_flops_per_sec: Of one device.
      num_devices: Number of devices.

    Returns:
      None if an argument is None or 0.
    """
    if not flops_per_step or not secs_per_step or not peak_flops_per_sec:
        return None
    return flops_per_step / secs_per_step / (peak_flops_per_sec * num_devices)


def describe_cell(
    cell: Cell,
    speeds: Mapping[str, float],
    flops_per_step: int | None,
    device_name: str | None,
    measured_peaks: Mapping[str, float],
) -> dict[str, Any]:
    """Returns a cell of the record.

    Args:
      cell: The combination that was run.
      speeds: Images per second by arm, of the arms that are correct.
      flops_per_step: See `model_flops_utilization`.
      device_name: As the driver has it.
      measured_peaks: "matmul_flops_per_sec" of `roof.measure_roof`.
    """
    sheet = data_sheets.find(device_name)
    printed = None if sheet is None else sheet.flops_per_sec(cell.precision)
    measured = measured_peaks.get(ROOF_NAMES[cell.precision])
    speed = speeds.get("engine")
    secs = cell.global_batch_size / speed if speed else None
    shares = (
        model_flops_utilization(flops_per_step, secs, peak, cell.num_devices)
        for peak in (printed, measured)
    )
    return {
        **dataclasses.asdict(cell),
        "images_per_sec": dict(speeds),
        "flops_per_step": flops_per_step,
        **dict(zip(("share_of_data_sheet", "share_of_measured_peak"), shares, strict=True)),
    }


def survey(
    find: Callable[[Cell], dict[str, Any]],
    precisions: Sequence[str],
    batch_sizes: Sequence[int],
    num_gpus: int,
    max_batch_size: int,
) -> dict[str, Any]:
    """Measures all cells, and returns what the record has of them.

    Args:
      find: Measures one and describes it.
      precisions: The first one is that of all but the matrix.
      batch_sizes: The largest one is.
      num_gpus: How many there are.
      max_batch_size: Up to which the largest batch is doubled until memory ends.
    """
    precision, largest = precisions[0], max(batch_sizes)
    find = functools.cache(find)  # the runs on one GPU are in the matrix, too

    def scale(**choices: bool) -> list[dict[str, Any]]:
        cells = make_scaling(num_gpus, precision, largest, **choices)
        found = {cell.num_devices: find(cell) for cell in cells}
        rows = efficiencies({n: cell["images_per_sec"].get("engine") for n, cell in found.items()})
        return [row | {"profile": found[row["num_devices"]].get("profile")} for row in rows]

    def fits(batch_size: int) -> bool:
        cell = Cell(
            precision=precision, jit_compile=False, global_batch_size=batch_size, seeks_memory=True
        )
        return "engine" in find(cell)["images_per_sec"]

    return {
        "cells": [find(cell) for cell in make_matrix(precisions, batch_sizes)],
        "questions": [find(cell) for cell in make_questions(precision, largest)],
        "scaling": scale(),
        "scaling_xla": scale(jit_compile=True) if num_gpus > 1 else [],
        "strong_scaling": scale(strong=True) if num_gpus > 1 else [],
        "largest_batch_size": find_largest_batch(fits, 2 * largest, max_batch_size),
        "max_batch_size": max_batch_size,
    }
