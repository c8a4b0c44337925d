"""Tables of scaling, learning, inference, custom steps and files that do not fit into memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.reporting import tables, targets
from benchmarks.reporting.races import Record


def scaling_tables(record: Record) -> str:
    """Returns the cost of an image by the size of the dataset, and of a step by their number."""
    parts = []
    for key, what, unit in (("images", "images", "image"), ("steps", "steps", "step")):
        sizes = record[key]
        rows = [
            [f"{s['size']:,}", tables.number(s["mean_usecs"], 4), tables.number(s["ratio"], 4),
             tables.interval(s["low"], s["high"]), str(len(s["usecs"]))]
            for s in sizes
        ]  # fmt: skip
        header = [what, f"us/{unit}", "over the smallest", "95 % interval", "pairs"]
        parts += [tables.table(header, rows), flatness_line(flatness(sizes))]
    return "\n\n".join(parts)


def inference_table(record: Record) -> str:
    """Returns the examples a second of the engine's evaluate and predict beside Keras's."""
    arms = {"engine": "engine", "keras": "Keras", "keras_tuned": "Keras, tuned"}
    ratios = {"ratio": "over Keras", "ratio_tuned": "over Keras, tuned"}
    return _compared_table(record["inference"], arms, ratios, "images/s")


def gallery_table(record: Record) -> str:
    """Returns the steps a second of the engine beside a bare loop's, of each custom step."""
    arms = {"engine": "engine", "streamed": "engine, streamed", "bare": "bare loop"}
    ratios = {"ratio": "engine over bare", "ratio_streamed": "streamed over bare"}
    return _compared_table(record["gallery"], arms, ratios, "steps/s")


def _compared_table(
    found: Mapping[str, Any], arms: Mapping[str, str], ratios: Mapping[str, str], unit: str
) -> str:
    """Returns a table with a row for each measure, of those arms and ratios that were measured."""
    first = next(iter(found.values()))
    arms, ratios = ({k: words[k] for k in words if k in first} for words in (arms, ratios))
    rows = [
        [name, *(tables.number(of[arm]["median"]) for arm in arms)]
        + [" (".join(tables.with_interval(of[ratio])) + ")" for ratio in ratios]
        for name, of in found.items()
    ]
    header = ["", *(f"{words}, {unit}" for words in arms.values()), *ratios.values()]
    return tables.table(header, rows)


def memory_tables(record: Record) -> str:
    """Returns what trains on a file that does not fit into memory: speeds, memory, ratios."""
    arms = record["memory_arms"]
    header = ["arm", "status", "images/s", "quartiles", "peak memory", "before the limit"]
    parts = [
        f"The file has {tables.gigabytes(record['dataset_bytes'])}; the private memory of a "
        f"process may grow by {tables.gigabytes(record['allowed_bytes'])} once it is warm. The "
        "system keeps the file in its page cache. The engine takes each epoch in another "
        f"permutation; fit shuffles in a buffer. Medians of {record['num_repeats']} rounds of an "
        "epoch.",
        tables.table(header, (_memory_row(name, arm) for name, arm in arms.items())),
        tables.reasons({"arms": arms}),
        tables.ratios_table(record) if record["ratios"] else "",
    ]
    return "\n\n".join(filter(None, parts))


def _memory_row(name: str, arm: Mapping[str, Any]) -> list[str]:
    if arm["status"] != "ok":
        return [name, tables.status(arm), *[tables.NOTHING] * 4]
    speed = arm["images_per_sec"]
    return [
        name,
        tables.status(arm),
        tables.number(speed["median"]),
        f"{tables.number(speed['quartile_1'])} to {tables.number(speed['quartile_3'])}",
        tables.gigabytes(arm["peak_memory_bytes"]),
        tables.gigabytes(arm["settings"]["resident_bytes_before"]),
    ]


def learning_table(record: Record) -> str:
    """Returns test accuracies by seed, and their differences from the exact numerics."""
    accuracies = record["accuracies"]
    rows = []
    for name, values in accuracies.items():
        found = record["differences"].get(name)
        difference, verdict = "-", "-"
        if found is not None:
            low, high = 100 * found["low"], 100 * found["high"]
            difference = f"{100 * found['difference']:+.2f} ({low:+.2f} to {high:+.2f})"
            verdict = "within noise" if found["is_within_noise"] else "different"
        shown = ", ".join(f"{100 * value:.2f}" for value in values)
        rows.append([name, shown, f"{100 * sum(values) / len(values):.2f}", difference, verdict])
    header = ["numerics", "test accuracy by seed, %", "mean", "difference (95 %)", "verdict"]
    return f"After {record['epochs']} epochs:\n\n{tables.table(header, rows)}"


def flatness(sizes: Sequence[Mapping[str, Any]]) -> float:
    """Returns how much more the most expensive size costs than the smallest, as a share.

    Args:
      sizes: As `benchmarks.scaling` records them.
    """
    return float(max(size["ratio"] for size in sizes)) - 1


def flatness_line(spread: float) -> str:
    """Returns a sentence on whether a cost depends on the size."""
    limit = targets.FLAT_WITHIN
    verdict = flatness_verdict(spread)
    return (
        f"The most expensive size costs {tables.percent(spread)} more than the smallest; "
        f"the target is {tables.percent(limit)} at most: {tables.strong(verdict)}."
    )


def flatness_verdict(spread: float) -> str:
    """Returns "reached", or by how much a cost depends on the size beyond the target."""
    over = spread - targets.FLAT_WITHIN
    return targets.REACHED if over <= 0 else f"missed by {tables.percent(over)}"
