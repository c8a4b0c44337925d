"""Images a second, the engine over `keras.Model.fit`: same model, batches, process and bits.

    python -m benchmarks.throughput --workload tiny

Fit is measured as people call it, on NumPy arrays (`fit_arrays_<steps_per_execution>`), and fed by
this project's own pipeline (`fit_pipeline_<steps_per_execution>`), which shows what the loop alone
gives. All arms see the order that fit gives to arrays, and must end with the same bits.

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

STEPS_PER_EXECUTION = (1, 8, 32, 128)
SEED = 0

Arm = tuple[engine.TrainState, Callable[[], object]]


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


def make_arms(workload: Workload) -> dict[str, Arm]:
    """Returns name -> (state, function that trains one epoch)."""
    (x, y), _ = synthetic.load_data(shape=(784,), num_train=workload.num_examples, num_test=10)
    batch_size = workload.global_batch_size
    dataset = pipeline.make_dataset(
        x, y, global_batch_size=batch_size, num_classes=10, shuffle=True, seed=SEED, order="keras"
    )
    arrays = (x / np.float32(255), keras.utils.to_categorical(y, 10).astype("float32"))

    def make_engine_arm() -> Arm:
        state, config = make_state(workload), engine.TrainConfig()
        return state, lambda: engine.fit(state, dataset, config)

    def make_fit_arm(steps_per_execution: int, *, on_arrays: bool) -> Arm:
        state = make_state(workload)
        state.model.steps_per_execution = steps_per_execution
        if on_arrays:
            return state, lambda: state.model.fit(*arrays, batch_size=batch_size, verbose=0)
        return state, lambda: state.model.fit(dataset, shuffle=False, verbose=0)

    arms = {"engine": make_engine_arm()}
    for kind, on_arrays in (("arrays", True), ("pipeline", False)):
        for number in STEPS_PER_EXECUTION:
            arms[f"fit_{kind}_{number}"] = make_fit_arm(number, on_arrays=on_arrays)
    return arms


def measure(workload: Workload, num_rounds: int) -> dict[str, list[float]]:
    """Returns images a second of each arm in each counted round.

    Raises:
      RuntimeError: If an arm's weights differ in a bit from the engine's, or did not move.
    """
    arms = make_arms(workload)
    before = arms["engine"][0].weights_sha256()
    speeds: dict[str, list[float]] = {name: [] for name in arms}
    for index in range(num_rounds + 1):
        # Forwards and backwards in turn, so that no arm always runs after the same other one.
        for name in list(arms)[:: 1 if index % 2 == 0 else -1]:
            keras.utils.set_random_seed(SEED)  # fit takes the order of the arrays from it
            started_at = time.perf_counter()
            arms[name][1]()
            secs = time.perf_counter() - started_at
            if index > 0:
                speeds[name].append(workload.num_examples / secs)
    check_same_bits(arms)
    if arms["engine"][0].weights_sha256() == before:
        raise RuntimeError("void: nothing was trained")
    return speeds


def check_same_bits(arms: dict[str, Arm]) -> None:
    """Raises RuntimeError if the weights of an arm are not those of the engine's."""
    ours = [v.numpy() for v in arms["engine"][0].model.variables]
    for name, (state, _) in arms.items():
        theirs = [v.numpy() for v in state.model.variables]
        if not all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)):
            raise RuntimeError(f"void: the weights of {name} differ from the engine's")


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
    lines = [f"{'arm':<18}{'images/s':>12}{'quartiles':>24}{'engine is x times as fast':>28}"]
    for name, row in summary.items():
        quartiles = f"{row['quartile_1']:,.0f} to {row['quartile_3']:,.0f}"
        ratio = row["engine_over_it"]
        lines.append(f"{name:<18}{row['median']:>12,.0f}{quartiles:>24}{ratio:>28.2f}")
    lines.append("")
    for kind in ("arrays", "pipeline"):
        arms = [name for name in summary if name.startswith(f"fit_{kind}_")]
        best = min(arms, key=lambda name: summary[name]["engine_over_it"])
        lines += [
            f"over fit on {kind}, defaults: {summary[arms[0]]['engine_over_it']:.2f}",
            f"over fit on {kind}, best:     {summary[best]['engine_over_it']:.2f} ({best})",
        ]
    return "\n".join([*lines, "weights of all arms: equal in all bits"])


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
