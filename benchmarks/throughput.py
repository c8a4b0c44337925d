"""Images a second, the engine over `keras.Model.fit`: same model, batches, process and bits.

    python -m benchmarks.throughput --workload tiny

Every arm trains one epoch a round, in turn, and the first round is not counted. A ratio is the
median over rounds of one arm's speed over another's in the same round, because the speed of a
shared machine drifts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import engine
from data import pipeline, synthetic
from engine.run import describe_environment

TUNED_STEPS_PER_EXECUTION = (8, 32, 128)


@dataclasses.dataclass(frozen=True)
class Workload:
    """A dense net on flat images of 784 pixels and 10 classes, with RMSprop."""

    num_hidden: int
    global_batch_size: int
    num_examples: int = 60_000


WORKLOADS = {"tiny": Workload(32, 32), "dense": Workload(512, 128)}


def make_state(workload: Workload) -> engine.TrainState:
    """Returns the same net with the same weights at every call."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(workload.num_hidden, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    return engine.TrainState(
        model,
        keras.optimizers.RMSprop(),
        loss=keras.losses.CategoricalCrossentropy(),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )


def make_arms(workload: Workload) -> dict[str, tuple[engine.TrainState, Callable[[int], object]]]:
    """Returns name -> (state, function that trains the epoch of an index)."""
    (x, y), _ = synthetic.load_data(shape=(784,), num_train=workload.num_examples, num_test=10)

    def make_dataset() -> pipeline.EpochDataset:
        return pipeline.make_dataset(
            x, y, global_batch_size=workload.global_batch_size, num_classes=10, shuffle=True
        )

    def make_engine_arm() -> tuple[engine.TrainState, Callable[[int], object]]:
        state, dataset = make_state(workload), make_dataset()

        def train(epoch: int) -> object:
            return engine.fit(
                state, dataset, engine.TrainConfig(initial_epoch=epoch, epochs=epoch + 1)
            )

        return state, train

    def make_fit_arm(steps_per_execution: int) -> tuple[engine.TrainState, Callable[[int], object]]:
        state, dataset = make_state(workload), make_dataset()
        state.model.steps_per_execution = steps_per_execution

        def train(epoch: int) -> object:
            dataset.seek(epoch)
            return state.model.fit(dataset, shuffle=False, verbose=0)

        return state, train

    fits = {f"fit_{n}": make_fit_arm(n) for n in (1, *TUNED_STEPS_PER_EXECUTION)}
    return {"engine": make_engine_arm(), **fits}


def measure(workload: Workload, num_rounds: int) -> dict[str, list[float]]:
    """Returns images a second of each arm in each counted round.

    Raises:
      AssertionError: If an arm's weights differ in a bit from the engine's, or did not move.
    """
    arms = make_arms(workload)
    before = arms["engine"][0].weights_sha256()
    speeds: dict[str, list[float]] = {name: [] for name in arms}
    for index in range(num_rounds + 1):
        # Forwards and backwards in turn, so that no arm always runs after the same other one.
        for name in list(arms)[:: 1 if index % 2 == 0 else -1]:
            started_at = time.perf_counter()
            arms[name][1](index)
            secs = time.perf_counter() - started_at
            if index > 0:
                speeds[name].append(workload.num_examples / secs)
    values = {name: [v.numpy() for v in state.model.variables] for name, (state, _) in arms.items()}
    for name, arrays in values.items():
        same = all(np.array_equal(a, b) for a, b in zip(arrays, values["engine"], strict=True))
        assert same, f"void: the weights of {name} differ from the engine's"
    assert arms["engine"][0].weights_sha256() != before, "void: nothing was trained"
    return speeds


def summarize(speeds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Returns for each arm its median, its quartiles, and the median ratio of the engine to it."""
    return {
        name: {
            "median": statistics.median(values),
            "quartile_1": float(np.quantile(values, 0.25)),
            "quartile_3": float(np.quantile(values, 0.75)),
            "engine_over_it": statistics.median(
                a / b for a, b in zip(speeds["engine"], values, strict=True)
            ),
        }
        for name, values in speeds.items()
    }


def to_table(summary: dict[str, dict[str, float]]) -> str:
    """Returns the summary for people."""
    lines = [f"{'arm':<10}{'images/s':>12}{'quartiles':>24}{'engine is x times as fast':>28}"]
    for name, row in summary.items():
        quartiles = f"{row['quartile_1']:,.0f} to {row['quartile_3']:,.0f}"
        lines.append(
            f"{name:<10}{row['median']:>12,.0f}{quartiles:>24}{row['engine_over_it']:>28.2f}"
        )
    best = min((n for n in summary if n != "engine"), key=lambda n: summary[n]["engine_over_it"])
    lines += [
        "",
        f"over fit's defaults:                  {summary['fit_1']['engine_over_it']:.2f}",
        f"over fit's best steps_per_execution:  {summary[best]['engine_over_it']:.2f} ({best})",
        "weights of all arms: equal in all bits",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures one workload and prints, and if asked writes, what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workload", choices=WORKLOADS, default="tiny")
    parser.add_argument("--num_rounds", type=int, default=9, help="counted epochs of each arm")
    parser.add_argument("--output", type=Path, help="JSON file for raw samples and environment")
    arguments = parser.parse_args(argv)
    workload = WORKLOADS[arguments.workload]
    speeds = measure(workload, arguments.num_rounds)
    summary = summarize(speeds)
    print(
        f"{arguments.workload}: {workload}, "
        f"medians of {arguments.num_rounds} epochs after the first"
    )
    print(to_table(summary))
    if arguments.output:
        record = {
            "workload": arguments.workload,
            **dataclasses.asdict(workload),
            "environment": describe_environment(),
            "images_per_sec": speeds,
            "summary": summary,
        }
        arguments.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
