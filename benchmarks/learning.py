"""Does what changes bits change the learning? Test accuracy with `numerics="fast"` and "exact".

    python -m benchmarks.learning --model dense

Trains a model of the registry on MNIST from several seeds, with fit's bits and with each of the
changes that `numerics="fast"` may bring, and compares the accuracies of the same seeds.

Writes benchmarks/results/learning-<model>_<hardware>_<date>.json, which the report shows.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import math
import os
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from benchmarks import RESULTS, ROOT
from gradloop import data, engine
from gradloop.data import pipeline
from gradloop.engine import runtime
from gradloop.engine.runtime import describe_environment
from gradloop.files import json_text, make_directory
from gradloop.models import registry
from gradloop.models.recipe import Recipe
from gradloop.usage import EXIT_USAGE

# What is learned so is the reference.
EXACT = "exact"
CONFIGS: dict[str, dict[str, Any]] = {
    EXACT: {},
    "fast": {"numerics": "fast"},
    "fast, whole loop in XLA": {"numerics": "fast", "jit_compile": True, "jit_scope": "loop"},
    "fast, bfloat16": {"numerics": "fast", "precision": "mixed_bfloat16"},
}
# Two-sided quantiles of Student's t at 95 %, by degrees of freedom.
_STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


def train(recipe: Recipe, arrays: data.DatasetArrays, seed: int, **changes: Any) -> float:
    """Trains from new weights as the recipe says, and returns the accuracy on the test set."""
    config = engine.TrainConfig(**(recipe.defaults | changes))
    with runtime.dtype_policy(config.precision):
        keras.utils.set_random_seed(seed)
        state = engine.TrainState(
            recipe.build((*arrays.x_train.shape[1:], 1), arrays.num_classes),
            recipe.make_optimizer(None),
            loss=recipe.make_loss(),
            metrics=recipe.make_metrics(),
        )
        train_ds, test_ds = (
            pipeline.make_dataset(
                x,
                y,
                global_batch_size=config.global_batch_size,
                num_classes=arrays.num_classes,
                shuffle=shuffle,
                seed=seed,
            )
            for x, y, shuffle in (
                (arrays.x_train, arrays.y_train, True),
                (arrays.x_test, arrays.y_test, False),
            )
        )
        engine.fit(state, train_ds, config)
        return float(engine.evaluate(state, test_ds, config)["accuracy"])


def compare(accuracies: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """Returns, for each way but the exact one, the mean difference from it and its interval.

    Args:
      accuracies: By way; of the same seeds in the same order, 2 to 10 of them.

    Returns:
      `difference`, `low` and `high` (95 %, Student's t over the pairs of a seed), and
      `is_within_noise`: whether the interval holds zero.
    """
    result = {}
    for name, values in accuracies.items():
        if name == EXACT:
            continue
        pairs = [a - b for a, b in zip(values, accuracies[EXACT], strict=True)]
        mean = statistics.mean(pairs)
        reach = _STUDENT[len(pairs) - 1] * statistics.stdev(pairs) / math.sqrt(len(pairs))
        result[name] = {
            "difference": mean,
            "low": mean - reach,
            "high": mean + reach,
            "is_within_noise": abs(mean) <= reach,
        }
    return result


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains all and returns the record.

    Raises:
      ValueError: If an argument is illegal.
    """
    if not 2 <= arguments.num_seeds <= len(_STUDENT) + 1:
        raise ValueError(f"--num_seeds {arguments.num_seeds}: must be 2 to {len(_STUDENT) + 1}")
    recipe = registry.get(arguments.model)
    if arguments.epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=arguments.epochs)
    arrays = data.load("mnist")
    ways = [name for name in CONFIGS if name == EXACT or name not in arguments.leave_out]
    accuracies: dict[str, list[float]] = {name: [] for name in ways}
    for seed in range(arguments.num_seeds):
        for name in ways:
            accuracies[name].append(train(recipe, arrays, seed, **CONFIGS[name]))
            print(f"seed {seed}, {name}: {accuracies[name][-1]:.4f}", flush=True)
    environment = describe_environment()
    return {
        "workload": f"learning-{arguments.model}",
        "hardware": arguments.hardware or f"cpu{environment['num_cores']}",
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "-m", "benchmarks.learning", *arguments.argv]),
        "environment": environment,
        "epochs": recipe.epochs,
        "accuracies": accuracies,
        "differences": compare(accuracies),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the process's exit code: 0, or 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.learning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", choices=registry.names(), default="dense")
    parser.add_argument("--num_seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument(
        "--leave_out", nargs="*", default=[], choices=[name for name in CONFIGS if name != EXACT]
    )
    parser.add_argument("--hardware", help="name of this machine; default: cpu<cores>")
    parser.add_argument(
        "--results", type=Path, default=ROOT / RESULTS, help="folder for the record"
    )
    arguments = parser.parse_args(argv)
    arguments.argv = list(sys.argv[1:] if argv is None else argv)
    try:
        record = run(arguments)
    except ValueError as error:
        print(f"benchmarks.learning: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    make_directory(arguments.results)
    name = f"{record['workload']}_{record['hardware']}_{record['date']}.json"
    (arguments.results / name).write_text(json_text(record, indent=1) + "\n", encoding="utf-8")
    for way, found in record["differences"].items():
        verdict = "within noise" if found["is_within_noise"] else "DIFFERENT"
        reach = f"{found['low']:+.4f} to {found['high']:+.4f}"
        print(f"{way}: {found['difference']:+.4f} ({reach}), {verdict}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
