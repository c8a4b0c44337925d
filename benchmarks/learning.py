"""Does what changes bits change the learning? Test accuracy with numerics "fast" and "exact".

    python -m benchmarks.learning --model dense

Trains a model on MNIST from several seeds, with fit's bits and with each of the changes that
`numerics="fast"` allows, and compares the test accuracies seed by seed.

Writes benchmarks/results/learning-<model>_<hardware>_<date>.json, which
`benchmarks.reporting.report` shows.
"""

from __future__ import annotations

import argparse
import dataclasses
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
from benchmarks.hardware import devices
from benchmarks.race.rungs import make_state
from benchmarks.reporting import records
from gradloop import data, engine
from gradloop.data import pipeline
from gradloop.engine import runtime
from gradloop.models import registry
from gradloop.models.recipe import Recipe
from gradloop.usage import EXIT_USAGE

# The reference: fit's bits.
EXACT = "exact"
CONFIGS: dict[str, dict[str, Any]] = {
    EXACT: {},
    "fast": {"numerics": "fast"},
    "fast, whole loop in XLA": {"numerics": "fast", "jit_compile": True, "jit_scope": "loop"},
    "fast, bfloat16": {"numerics": "fast", "precision": "mixed_bfloat16"},
}
# Two-sided 95 % quantiles of Student's t, by degrees of freedom.
_STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


def train(recipe: Recipe, arrays: data.DatasetArrays, seed: int, **changes: Any) -> float:
    """Trains a new model as its recipe says and returns the test accuracy.

    Args:
      recipe: Of the model.
      arrays: The dataset.
      seed: Of weights, order and dropout.
      **changes: Fields of the config that differ from the recipe's.
    """
    config = engine.TrainConfig(**(recipe.defaults | changes))
    with runtime.dtype_policy(config.precision):
        keras.utils.set_random_seed(seed)
        state = make_state(recipe, (arrays.x_train, arrays.y_train, arrays.num_classes))
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
    """Returns the mean difference in accuracy between each of the other numerics and the exact one.

    Args:
      accuracies: By numerics; of the same 2 to 10 seeds in the same order.

    Returns:
      Numerics to `difference`, `low` and `high` (95 %, paired t-test), and `is_within_noise`:
      whether the interval contains zero.
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
    """Trains all models and returns the record.

    Raises:
      ValueError: If an argument is illegal.
    """
    if not 2 <= arguments.num_seeds <= len(_STUDENT) + 1:
        raise ValueError(f"--num_seeds {arguments.num_seeds}: must be 2 to {len(_STUDENT) + 1}")
    recipe = registry.get(arguments.model)
    if arguments.epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=arguments.epochs)
    arrays = data.load_arrays("mnist")
    if (num := arguments.num_examples) is not None:
        arrays = arrays._replace(x_train=arrays.x_train[:num], y_train=arrays.y_train[:num])
    chosen = [name for name in CONFIGS if name == EXACT or name not in arguments.leave_out]
    accuracies: dict[str, list[float]] = {name: [] for name in chosen}
    for seed in range(arguments.num_seeds):
        for name in chosen:
            accuracies[name].append(train(recipe, arrays, seed, **CONFIGS[name]))
            print(f"seed {seed}, {name}: {accuracies[name][-1]:.4f}", flush=True)
    command = shlex.join(["python", "-m", "benchmarks.learning", *arguments.argv])
    return {
        "workload": f"learning-{arguments.model}",
        **records.describe_run(arguments.hardware or devices.short_name("cpu"), command),
        "epochs": recipe.epochs,
        "num_examples": len(arrays.x_train),
        "accuracies": accuracies,
        "differences": compare(accuracies),
    }


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.learning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    others = [name for name in CONFIGS if name != EXACT]
    add = parser.add_argument
    add("--model", choices=registry.names(), default="dense", help="default: dense")
    add("--num_seeds", type=int, default=5, help="2 to 10 (default: 5)")
    add("--epochs", type=int, help="epochs of a training (default: the model's recipe)")
    add("--num_examples", type=int, help="training examples, the first ones (default: all)")
    add("--leave_out", nargs="*", default=[], choices=others, help="numerics not to train with")
    add("--hardware", help="the machine's name in the record (default: cpu<cores>)")
    add("--results", type=Path, default=ROOT / RESULTS, help="folder for the record")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, prints and writes a record; returns 0, or 2 for wrong usage."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = make_parser().parse_args(argv)
    arguments.argv = list(argv)
    try:
        record = run(arguments)
        path = arguments.results / records.default_path(record).name
        records.write(record, path)
    except ValueError as error:
        print(f"benchmarks.learning: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    for name, found in record["differences"].items():
        verdict = "within noise" if found["is_within_noise"] else "DIFFERENT"
        reach = f"{found['low']:+.4f} to {found['high']:+.4f}"
        print(f"{name}: {found['difference']:+.4f} ({reach}), {verdict}")
    print(f"Record: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
