"""A record of `benchmarks.gpu` as tables in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.reporting.races import Record
from benchmarks.reporting.tables import NOTHING, gigabytes, number, percent, table

_OWN_ARMS = ("engine", "keras_fit", "keras_fit_again")


def gpu_tables(record: Record) -> str:
    """Returns the cells of a GPU record, what several GPUs bring, and what else was measured."""
    header = ["precision", "XLA", "batch", "engine, images/s", "fit, images/s", "engine over fit"]
    header += ["of the data sheet", "of the measured peak", "device memory", "device idle"]
    header += ["engine's first run, s", "fit's first run, s"]
    parts = [table(header, map(_cell_row, record["cells"]))]
    parts += filter(None, [_peers_table(record["cells"])])
    if record.get("questions"):
        header = ["asked", "XLA", "batch", "engine, images/s", "fit, images/s"]
        header += ["fit gave its bits twice", "reduce"]
        parts.append(table(header, map(_question_row, record["questions"])))
    for name, of in (
        ("scaling", "batch for each"),
        ("scaling_xla", "batch for each, XLA in the replicas"),
        ("strong_scaling", "batch for all"),
    ):
        rows = [_scaling_row(row) for row in record.get(name) or ()]
        if rows:
            header = [f"GPUs, the same {of}", "engine, images/s", "efficiency"]
            parts.append(table([*header, "device idle", "reduce"], rows))
    copies = number(record["host_to_device_bytes_per_sec"] / 1e9)
    parts += [_largest_batch(record), f"Copies from host to device: {copies} GB/s."]
    return "\n\n".join(filter(None, parts))


def _cell_row(cell: Mapping[str, Any]) -> list[str]:
    speeds, first = cell["images_per_sec"], cell.get("first_run_secs") or {}
    engine, fit = speeds.get("engine"), speeds.get("keras_fit")
    return [
        cell["precision"],
        _xla(cell),
        str(cell["global_batch_size"]),
        number(engine),
        number(fit),
        number(engine / fit if engine and fit else None),
        percent(cell["share_of_data_sheet"]),
        percent(cell["share_of_measured_peak"]),
        gigabytes(cell["device_memory_bytes"]),
        _share(cell, "idle_share"),
        number(first.get("engine")),
        number(first.get("keras_fit")),
    ]


def _question_row(cell: Mapping[str, Any]) -> list[str]:
    asked = "deterministic operations" if cell["deterministic"] else "MirroredStrategy on one GPU"
    speeds, is_steady = cell["images_per_sec"], cell["fit_is_steady"]
    return [
        asked,
        _xla(cell),
        str(cell["global_batch_size"]),
        number(speeds.get("engine")),
        number(speeds.get("keras_fit")),
        NOTHING if is_steady is None else ("yes" if is_steady else "no"),
        _share(cell, "reduce_share"),
    ]


def _scaling_row(row: Mapping[str, Any]) -> list[str]:
    speeds = [number(row["images_per_sec"]), percent(row["efficiency"])]
    shares = [_share(row, name) for name in ("idle_share", "reduce_share")]
    return [str(row["num_devices"]), *speeds, *shares]


def _peers_table(cells: Iterable[Mapping[str, Any]]) -> str:
    """Returns the speeds of other frameworks, and under them why one has none; "" without any."""
    found = [cell for cell in cells if cell.get("peers")]
    names = list(dict.fromkeys(name for cell in found for name in cell["peers"]))
    if not names:
        return ""
    rows = (
        [cell["precision"], str(cell["global_batch_size"])]
        + [number(cell["images_per_sec"].get(name)) for name in ("engine", *names)]
        for cell in found
    )
    reasons = dict.fromkeys(
        f"- `{name}`: {cell['faults'][name]}"
        for cell in found
        for name in names
        if name in cell["faults"]
    )
    speeds = table(["images/s: precision", "batch", "engine", *names], rows)
    return "\n\n".join(filter(None, [speeds, "\n".join(reasons)]))


def _largest_batch(record: Record) -> str:
    limit, largest = record.get("max_batch_size"), record.get("largest_batch_size")
    if not limit:
        return ""
    if largest is None:
        return "Memory ends below twice the largest batch of the table."
    if 2 * largest > limit:
        return f"Largest batch that was tried, and fits into memory: {largest:,}."
    return f"Largest batch that fits into memory: {largest:,}; {2 * largest:,} does not."


def _share(cell: Mapping[str, Any], name: str) -> str:
    """Returns the mean of a share over the devices."""
    devices = (cell.get("profile") or {}).values()
    return percent(statistics.fmean(device[name] for device in devices) if devices else None)


def _xla(cell: Mapping[str, Any]) -> str:
    return "on" if cell["jit_compile"] else "off"
