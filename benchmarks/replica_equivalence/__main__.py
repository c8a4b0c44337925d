"""Does a model train alike on any number of replicas and workers? A certificate for yours.

    python -m benchmarks.replica_equivalence --replicas 1 2 4 --workers 1 2 --model dense

Trains on the same global batches on 1, 2, 4 logical devices and on 1, 2 worker processes of this
machine, each count in new processes, and compares the weights after the last step, loss and metrics
with those of one replica: they may differ as far as float32 explains (`judgement` derives it).
Workers are compared with as many replicas of one process: bit for bit. The last batch divides by no
count, if the model is one of gradloop's.

Dropout is off, since each replica draws masks of its own size; BatchNormalization must be
synchronized. Your own model: `--model package.module:function`, of a function that returns a
compiled model and a dataset of global batches, in an order that is the same each time.

Exits with 0 if all is equal, 1 if something differs, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from gradloop.files import json_text, write_atomically
from gradloop.usage import EXIT_USAGE

from . import counts, judgement

PROG = "benchmarks.replica_equivalence"


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = argparse.ArgumentParser(
        prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--replicas", nargs="+", type=int, default=[1, 2, 4], help="counts (default: 1 2 4)")
    add("--workers", nargs="*", type=int, default=[1, 2], help="counts (default: 1 2)")
    add("--model", default="dense", help="a model's name, or package.module:function")
    add("--num_steps", type=int, default=20, help="steps of each training (default: 20)")
    add("--global_batch_size", type=int, default=64, help="of all but the last (default: 64)")
    add("--max_secs", type=float, default=600, help="of one training (default: 600)")
    add("--output", type=Path, help="write what was found there, as JSON")
    return parser


def check(arguments: argparse.Namespace) -> None:
    """Raises ValueError if a flag is illegal."""
    from .training import check_model

    numbers = {"num_steps": [arguments.num_steps], "workers": arguments.workers}
    numbers |= {"replicas": arguments.replicas, "max_secs": [arguments.max_secs]}
    numbers["global_batch_size"] = [arguments.global_batch_size]
    for name, values in numbers.items():
        for value in values:
            if value < 1:
                raise ValueError(f"--{name} {value}: must be 1 or more")
    largest = max([*arguments.replicas, *arguments.workers])
    if arguments.global_batch_size < 2 * largest:
        raise ValueError(
            f"--global_batch_size {arguments.global_batch_size}: must be {2 * largest} or more, "
            f"two examples for each of {largest} replicas"
        )
    check_model(arguments.model)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains at all counts, and returns the rows, the bound and the verdict."""
    task = {
        "model": arguments.model, "num_steps": arguments.num_steps,
        "global_batch_size": arguments.global_batch_size,
    }  # fmt: skip
    wanted = [counts.Count(1), counts.Count(1, reverses=True)]
    wanted += [counts.Count(number) for number in sorted(set(arguments.replicas) - {1})]
    wanted += [counts.Count(number, by_workers=True) for number in sorted(set(arguments.workers))]
    results = {}
    for count in wanted:
        print(f"{count} ...", file=sys.stderr, flush=True)
        results[count] = counts.run(count, task, arguments.max_secs)
    bound = judgement.summation_bound(arguments.num_steps, arguments.global_batch_size)
    num_examples = arguments.num_steps * arguments.global_batch_size
    rows = judgement.judge(results, bound, num_examples)
    return {
        **task, "bound": bound, "is_equal": all(row.is_equal for row in rows), "rows": rows
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, compares and prints; returns the exit code."""
    arguments = make_parser().parse_args(argv)
    try:
        check(arguments)
        found = run(arguments)
    except (ValueError, RuntimeError) as error:
        print(f"{PROG}: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    print(judgement.to_table(found["rows"]))
    if arguments.output is not None:
        described = found | {"rows": [dataclasses.asdict(row) for row in found["rows"]]}
        text = json_text(described, indent=2) + "\n"
        write_atomically(arguments.output, lambda file: file.write(text))
    print("equal at every count" if found["is_equal"] else "NOT equal at every count")
    return 0 if found["is_equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
