"""Images per second of `predict` and `evaluate`: the engine's and Keras's, in one process.

    python -m benchmarks.inference --workload dense cnn lstm --record

Each predicts, and evaluates, the same examples with the same weights, in short runs that take turns
within seconds: what slows the machine down slows all of them. Keras runs with its defaults (but for
tf.data's autotuner; see `tf_runtime.make_fit_dataset`), and with the `steps_per_execution` that is
fastest here. Ends when the intervals of the ratios are narrower than 5 %, or after `--max_secs`;
that the predictions have the same bits and the metrics the same values is checked before.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from benchmarks.arms import keras_fit, tf_runtime
from benchmarks.hardware import devices
from benchmarks.race import keras_models, preparation, turns
from benchmarks.race.workloads import WORKLOADS, Task, Workload
from benchmarks.reporting import records, stats
from gradloop import engine
from gradloop.data import pipeline
from gradloop.usage import EXIT_USAGE

STEPS_PER_EXECUTION = (8, 32, 128)
MEASURES = ("predict", "evaluate")
OVER = {"ratio": "keras", "ratio_tuned": "keras_tuned"}
_NUM_TRIALS = 3
# Of MNIST's training examples: a run takes a part of a second.
NUM_EXAMPLES = {"tiny": 12_800, "dense": 12_800, "cnn": 3_200, "lstm": 3_200}

Calls = Mapping[str, Callable[[], Any]]


def make_calls(task: Task) -> dict[str, Calls]:
    """Returns, of `predict` and of `evaluate`, who runs to a function that runs it once.

    "keras" has its defaults; "keras_8" and so on have those `steps_per_execution`.
    """
    tf_runtime.configure(task)
    # What people pass to Keras; the engine's pipeline makes the same batches of the bytes.
    x, y = tf_runtime.load_fit_arrays(task)
    size = task.workload.global_batch_size
    # More steps than there are batches are as many as there are.
    numbers = {min(number, len(x) // size) for number in STEPS_PER_EXECUTION}
    names = {f"keras_{number}": number for number in sorted(numbers)}
    models = {name: _make_model(task, number) for name, number in ({"keras": 1} | names).items()}
    predict, evaluate = _engine_calls(task)
    inputs = tf_runtime.make_fit_dataset(task, x, shuffle=False)
    examples = tf_runtime.make_fit_dataset(task, x, y, shuffle=False)
    return {
        "predict": {"engine": predict}
        | {name: lambda m=m: m.predict(inputs, verbose=0) for name, m in models.items()},  # type: ignore[misc]
        "evaluate": {"engine": evaluate}
        | {
            name: lambda m=m: m.evaluate(examples, return_dict=True, verbose=0)  # type: ignore[misc]
            for name, m in models.items()
        },
    }


def _make_model(task: Task, steps_per_execution: int) -> keras.Model:
    model = tf_runtime.build_model(task)
    keras_fit.compile_model(model, task, steps_per_execution=steps_per_execution, jit_compile=False)
    return model


def _engine_calls(task: Task) -> tuple[Callable[[], Any], Callable[[], Any]]:
    workload = task.workload
    state = engine.TrainState(
        tf_runtime.build_model(task),
        keras_models.make_optimizer(workload),
        loss=keras_models.make_loss(workload),
        metrics=keras_models.make_metrics(),
    )
    x, y = tf_runtime.load_train_arrays(task)
    dataset = pipeline.make_dataset(
        x, y, global_batch_size=workload.global_batch_size, num_classes=workload.num_classes
    )
    config = engine.TrainConfig(jit_compile=False)
    return (
        lambda: engine.predict(state, dataset, config),
        lambda: engine.evaluate(state, dataset, config),
    )


def check_equal(calls: Calls, measure: str) -> dict[str, float]:
    """Runs each once, and returns the seconds of that first call, which traces.

    Raises:
      RuntimeError: If the bits of predictions, or the values of metrics, are not Keras's.
    """
    secs, results = {}, {}
    for name, call in calls.items():
        secs[name], results[name] = _time(call)
    for name, result in results.items():
        if not np.array_equal(_values(result), _values(results["keras"])):
            raise RuntimeError(f"{measure}: {name} has not the results of Keras's defaults.")
    return secs


def _values(result: Any) -> Any:
    """Returns predictions, or the values of metrics in the order of their names."""
    return [result[name] for name in sorted(result)] if isinstance(result, Mapping) else result


def _time(call: Callable[[], Any]) -> tuple[float, Any]:
    started_at = time.perf_counter()
    result = call()
    return time.perf_counter() - started_at, result


def choose_tuned(calls: Calls) -> str:
    """Returns which settings of Keras's are fastest, by the median of a few runs in turn."""
    names = [name for name in calls if name != "engine"]
    rounds = [{name: _time(calls[name])[0] for name in names} for _ in range(_NUM_TRIALS)]
    return min(names, key=lambda name: statistics.median(found[name] for found in rounds))


def race(calls: Calls, tuned: str, max_secs: float) -> dict[str, list[float]]:
    """Returns the seconds of each run, by who ran; see `take_turns`."""
    of = {"engine": "engine", "keras": "keras", "keras_tuned": tuned}
    runs = {name: lambda call=calls[who]: _time(call)[0] for name, who in of.items()}  # type: ignore[misc]
    return turns.take_turns(runs, [("engine", over) for over in OVER.values()], max_secs)


def measure(task: Task, max_secs: float) -> dict[str, Any]:
    """Returns what a record says under "inference"; half of the time goes to each measure."""
    found: dict[str, Any] = {}
    for name, calls in make_calls(task).items():
        first_secs = check_equal(calls, name)
        tuned = choose_tuned(calls)
        secs = race(calls, tuned, max_secs / len(MEASURES))
        speeds = turns.to_speeds(secs, task.workload.num_examples)
        found[name] = {
            who: dataclasses.asdict(stats.summarize(values)) for who, values in speeds.items()
        }
        for ratio, over in OVER.items():
            found[name][ratio] = dataclasses.asdict(stats.compare(speeds["engine"], speeds[over]))
        found[name] |= {
            "tuned": tuned,
            "num_rounds": len(secs["engine"]),
            "first_call_secs": {who: first_secs[who] for who in ("engine", "keras")},
            "has_equal_results": True,
        }
    return found


def run(workload: Workload, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures a workload and returns its record."""
    with tempfile.TemporaryDirectory(prefix="gradloop-bench-") as directory:
        task = Task(workload=workload, directory=Path(directory))
        preparation.prepare(workload, task.directory, seed=task.seed)
        found = measure(task, arguments.max_secs)
    command = shlex.join(["python", "-m", "benchmarks.inference", *arguments.argv])
    return {
        "workload": f"inference-{workload.name}",
        **records.describe_run(devices.short_name("cpu"), command),
        "num_examples": workload.num_examples,
        "global_batch_size": workload.global_batch_size,
        "inference": found,
    }


def show(record: Mapping[str, Any]) -> None:
    """Prints the images per second, and the ratios with their intervals."""
    print(f"\n{record['workload']}: {record['num_examples']} examples a run, same results")
    for name, found in record["inference"].items():
        speeds = (f"{who} {found[who]['median']:,.0f}" for who in ("engine", *OVER.values()))
        print(f"{name}, images/s: {', '.join(speeds)} ({found['tuned']})")
        for ratio, over in OVER.items():
            r = found[ratio]
            interval = f"{r['low']:.2f} to {r['high']:.2f}"
            print(f"  engine over {over}: {r['median']:.2f} ({interval}), {r['verdict']}")
        first = found["first_call_secs"]
        print(f"  first call: engine {first['engine']:.2f} s, keras {first['keras']:.2f} s")


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.inference",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--workload", nargs="+", choices=NUM_EXAMPLES, default=["dense", "cnn"], metavar="NAME",
        help=f"some of {', '.join(NUM_EXAMPLES)} (default: dense cnn)")  # fmt: skip
    add("--num_examples", type=int, help="examples of a run (default: the workload's here)")
    add("--max_secs", type=float, default=60.0, help="limit for a workload (default: 60)")
    add("--record", action="store_true", help="write the records into benchmarks/results")
    return parser


def resize(name: str, num_examples: int | None) -> Workload:
    """Returns a workload of that many examples, in full batches.

    Raises:
      ValueError: If they are fewer than a batch.
    """
    workload = WORKLOADS[name]
    size = workload.global_batch_size
    wanted = NUM_EXAMPLES[name] if num_examples is None else num_examples
    if wanted < size:
        raise ValueError(f"--num_examples {wanted} is less than a batch of {size}: pass {size}")
    return dataclasses.replace(workload, num_examples=wanted - wanted % size)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and records; returns 0, 1 for other results, or 2 for wrong usage."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = make_parser().parse_args(argv)
    arguments.argv = list(argv)
    try:
        workloads = [resize(name, arguments.num_examples) for name in arguments.workload]
        for workload in workloads:
            record = run(workload, arguments)
            show(record)
            if arguments.record:
                path = records.default_path(record)
                records.write(record, path)
                print(f"Record: {path}")
    except ValueError as error:
        print(f"benchmarks.inference: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except RuntimeError as error:
        print(f"benchmarks.inference: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
