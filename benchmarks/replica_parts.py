"""Where a step's time goes under replicas: rows that take turns, each with one thing more.

    python -m benchmarks.replica_parts --model dense --num_replicas 2

    one device           the default step, without a strategy
    gradients            on each replica, of its part of the batch
    + update             each replica updates its variables by its own gradients
    + sum                the gradients are summed first
    + metrics            the default step
    by a ring            the default step with all_reduce="ring"
    batches of tf.data   the default step with all_reduce="ring" and input="streamed"

Without a GPU, the replicas are logical CPU devices. The table has medians and quartiles.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

from benchmarks.race import rungs
from benchmarks.reporting import stats
from gradloop import data, engine
from gradloop.data import pipeline
from gradloop.engine.patching import patched
from gradloop.engine.tuning.trial import Trial, make_trial, run_in_turn
from gradloop.models import registry
from gradloop.usage import EXIT_USAGE


def gradients(state: engine.TrainState, batch: Any) -> dict[str, Any]:
    """Computes gradients, and logs a number that needs all of them. Context: replica."""
    found = [tf.convert_to_tensor(g) for g in rungs.gradients_of(state, batch) if g is not None]
    firsts = [tf.reshape(g, [-1])[0] for g in found]
    return {"first": engine.last(tf.add_n([tf.cast(one, tf.float32) for one in firsts]))}


def update_alone(state: engine.TrainState, batch: Any) -> dict[str, Any]:
    """Updates with what this replica has found, which is no training. Context: replica."""
    found = rungs.gradients_of(state, batch)
    with patched(state.optimizer, _all_reduce_sum_gradients=lambda pairs: pairs):
        state.apply_gradients(found)
    return {}


# Name to the step, whether replicas do it, and fields of the config.
ROWS: dict[str, tuple[Any, bool, dict[str, Any]]] = {
    "one device": (engine.train_step, False, {}),
    "gradients": (gradients, True, {"uneven": "fit"}),  # or its log is weighed
    "+ update": (update_alone, True, {}),
    "+ sum": (rungs.update, True, {}),
    "+ metrics": (engine.train_step, True, {}),
    "by a ring": (engine.train_step, True, {"all_reduce": "ring"}),
    "batches of tf.data": (
        engine.train_step, True, {"all_reduce": "ring", "input": "streamed"},
    ),
}  # fmt: skip


def make_trials(model: str, num_replicas: int, batch_size: int | None) -> dict[str, Trial]:
    """Returns a training of its own for each row."""
    recipe, found = registry.get(model), data.load_arrays("mnist")
    arrays = found.x_train, found.y_train, found.num_classes
    size = batch_size or recipe.global_batch_size
    trials = {}
    for name, (step, has_replicas, fields) in ROWS.items():
        on_replicas = {"strategy": "mirrored", "num_replicas": num_replicas} if has_replicas else {}
        config = engine.TrainConfig(global_batch_size=size, **on_replicas, **fields)
        strategy = engine.make_strategy(config) if has_replicas else None
        keras.utils.set_random_seed(0)
        with contextlib.nullcontext() if strategy is None else strategy.scope():
            state = rungs.make_state(recipe, arrays)
        dataset = pipeline.make_dataset(
            *arrays[:2], global_batch_size=size, num_classes=arrays[2], shuffle=True
        )
        trials[name] = make_trial(state, dataset, config, step)
    return trials


def to_table(trials: dict[str, Trial]) -> str:
    """Returns the rows as text."""
    lines = [f"{'':<20}{'us/step':>10}{'quartiles':>20}{'of one device':>15}"]
    found = {n: stats.summarize([1e6 / s for s in t.speeds]) for n, t in trials.items()}
    for name, one in found.items():
        quartiles = f"{one.quartile_1:,.0f} to {one.quartile_3:,.0f}"
        share = one.median / found["one device"].median
        lines.append(f"{name:<20}{one.median:>10,.0f}{quartiles:>20}{share:>15.2f}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0, or 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.replica_parts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default="dense", choices=registry.names(), help="default: dense")
    add("--num_replicas", type=int, default=2, help="default: 2")
    add("--global_batch_size", type=int, help="examples of a step (default: the model's recipe)")
    add("--num_rounds", type=int, default=7, help="default: 7")
    add("--secs", type=float, default=0.5, help="of each row in a round (default: 0.5)")
    arguments = parser.parse_args(argv)
    try:
        if min(arguments.num_replicas - 1, arguments.num_rounds) < 1:
            raise ValueError("--num_replicas must be 2 or more, --num_rounds 1 or more")
        engine.configure_runtime(
            engine.TrainConfig(strategy="mirrored", num_replicas=arguments.num_replicas)
        )
        trials = make_trials(arguments.model, arguments.num_replicas, arguments.global_batch_size)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".* changes none")  # of the gradients
            run_in_turn(list(trials.values()), arguments.num_rounds, arguments.secs)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    print(f"{arguments.model}, {arguments.num_replicas} replicas")
    print(to_table(trials))
    return 0


if __name__ == "__main__":
    sys.exit(main())
