"""What each part of a training step costs, from the forward pass alone to training on real data.

    python -m benchmarks.ladder --model cnn

Each rung does what the rung before it does, and one thing more:

    forward      the model and its loss, on one constant batch
    + backward   the gradients
    + optimizer  the update
    + metrics    the default step, as `engine.fit` runs it
    + hooks      `engine.fit` with a progress bar and the stops on NaN and on signals
    + logging    metrics written as CSV, as JSON lines, and for TensorBoard if it is installed
    + real data  the batches of the pipeline instead of the constant one

All rungs run many steps in one host call, and take turns. The table has medians. What a rung adds
is its difference from the rung before: parts that overlap on several cores may add less than they
cost alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


from benchmarks.race import rungs as rungs_lib
from benchmarks.reporting import stats
from gradloop import data
from gradloop.engine.runtime import describe_environment
from gradloop.engine.storage.extras import MissingExtra, require_extra
from gradloop.files import json_text
from gradloop.models import registry
from gradloop.usage import EXIT_USAGE

_WARMUP_STEPS = 5
_MIN_SECS = 0.1
_REPEAT_SECS = 1.0
_COLOR = "#1f6f8b"


def choose_num_steps(rungs: Mapping[str, rungs_lib.Rung]) -> int:
    """Returns the number of default steps that take about a second."""
    rung = rungs["+ metrics"]
    rung(_WARMUP_STEPS)  # traces
    num_steps = _WARMUP_STEPS
    while (secs := rung(num_steps)) < _MIN_SECS:
        num_steps *= 2
    return max(_WARMUP_STEPS, int(num_steps * _REPEAT_SECS / secs))


def measure(
    rungs: Mapping[str, rungs_lib.Rung], num_steps: int, num_repeats: int
) -> dict[str, list[float]]:
    """Returns microseconds per step of each rung in each counted round."""
    for rung in rungs.values():
        rung(min(num_steps, _WARMUP_STEPS))  # traces
        rung(num_steps)
    usecs: dict[str, list[float]] = {name: [] for name in rungs}
    for index in range(num_repeats):
        # In alternating order, so that no rung always runs after the same one.
        for name in list(rungs)[:: 1 if index % 2 == 0 else -1]:
            usecs[name].append(rungs[name](num_steps) / num_steps * 1e6)
    return usecs


def summarize(usecs: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Returns the median and quartiles of each rung, and what it adds to the one before."""
    rows: list[dict[str, Any]] = []
    for name, samples in usecs.items():
        found = stats.summarize(samples)
        before = rows[-1]["usecs"] if rows else 0.0
        rows.append(
            {
                "rung": name,
                "usecs": found.median,
                "quartile_1": found.quartile_1,
                "quartile_3": found.quartile_3,
                "adds_usecs": found.median - before,
            }
        )
    return rows


def to_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the rungs as text, from the bottom up."""
    whole = rows[-1]["usecs"]
    lines = [f"{'':<14}{'us/step':>12}{'quartiles':>24}{'adds':>12}{'of all':>9}"]
    for row in rows:
        quartiles = f"{row['quartile_1']:,.1f} to {row['quartile_3']:,.1f}"
        lines.append(
            f"{row['rung']:<14}{row['usecs']:>12,.1f}{quartiles:>24}{row['adds_usecs']:>12,.1f}"
            f"{row['adds_usecs'] / whole:>9.1%}"
        )
    return "\n".join(lines)


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Draws what each rung adds to those below.

    Raises:
      MissingExtra: If matplotlib is not installed.
    """
    require_extra("matplotlib", "plots")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for position, row in enumerate(record["rungs"]):
        start = row["usecs"] - row["adds_usecs"]
        axes.barh(position, row["adds_usecs"], left=start, color=_COLOR)
        axes.text(row["usecs"], position, f"  {row['adds_usecs']:+,.0f}", va="center", fontsize=9)
    axes.set_yticks(range(len(record["rungs"])), [row["rung"] for row in record["rungs"]])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("microseconds per step")
    axes.set_title(f"{record['model']}, batch {record['global_batch_size']}", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.ladder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default="cnn", choices=registry.names(), help="default: cnn")
    add("--dataset", default="mnist", choices=sorted(data.DATASETS), help="default: mnist")
    add("--global_batch_size", type=int, help="examples of a step (default: the model's recipe)")
    add("--num_steps", type=int, help="steps of a repeat (default: as many as take a second)")
    add("--num_repeats", type=int, default=7, help="counted repeats (default: 7)")
    add("--output", type=Path, help="write samples and environment to this JSON file")
    add("--chart", type=Path, help="draw to this file; its suffix names the format")
    return parser


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures and returns the record.

    Raises:
      ValueError: If an argument is illegal, or the data is not available.
    """
    for name in ("global_batch_size", "num_steps", "num_repeats"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} {value}: must be 1 or more")
    recipe = registry.get(arguments.model)
    global_batch_size = arguments.global_batch_size or recipe.global_batch_size
    arrays = data.load_arrays(arguments.dataset)
    examples = (arrays.x_train, arrays.y_train, arrays.num_classes)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        rungs = rungs_lib.make_rungs(recipe, examples, global_batch_size, Path(folder), stack)
        num_steps = arguments.num_steps or choose_num_steps(rungs)
        usecs = measure(rungs, num_steps, arguments.num_repeats)
    return {
        "model": arguments.model,
        "dataset": arguments.dataset,
        "global_batch_size": global_batch_size,
        "num_steps": num_steps,
        "num_repeats": arguments.num_repeats,
        "environment": describe_environment(),
        "usecs": usecs,
        "rungs": summarize(usecs),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes what the flags ask for; returns 0, or 2 for wrong usage."""
    arguments = make_parser().parse_args(argv)
    try:
        record = run(arguments)
        print(
            f"{record['model']}, batch {record['global_batch_size']}: medians of "
            f"{record['num_repeats']} repeats of {record['num_steps']} steps"
        )
        print(to_table(record["rungs"]))
        if arguments.output:
            arguments.output.write_text(json_text(record, indent=2) + "\n", "utf-8")
        if arguments.chart:
            draw(record, arguments.chart)
    except (ValueError, OSError, MissingExtra) as error:
        print(f"benchmarks.ladder: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main())
