"""The share of a device's peak that a speed reaches, and the combinations of a GPU run."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
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
    """

    precision: str
    jit_compile: bool
    global_batch_size: int
    num_devices: int = 1


def make_matrix(precisions: Sequence[str], batch_sizes: Sequence[int]) -> list[Cell]:
    """Returns every combination on one GPU, without and with XLA."""
    return [
        Cell(precision=precision, jit_compile=jit_compile, global_batch_size=batch_size)
        for precision, jit_compile, batch_size in itertools.product(
            precisions, (False, True), batch_sizes
        )
    ]


def make_scaling(num_gpus: int, precision: str, per_replica_batch_size: int) -> list[Cell]:
    """Returns runs on 1, 2, 4, ... and all GPUs, with the same batch size for each GPU.

    Without XLA, which cannot compile the exchange between replicas.
    """
    counts = {2**power for power in range(num_gpus.bit_length())} | {num_gpus}
    return [
        Cell(
            precision=precision,
            jit_compile=False,
            global_batch_size=count * per_replica_batch_size,
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
