"""Training on a file that does not fit into memory: the engine and Keras's `fit`.

    python -m benchmarks.memory_limited --record

Writes records of images to a temporary directory. The engine trains on them with the project's
pipeline of files, Keras with a pipeline of TFRecordDataset: as TensorFlow's guide has it, and
tuned. Each is a process that may have a quarter of the file's size more of private memory than it
has once it is warm; one that asks for more dies, and leaves the race. They take turns, an epoch at
a time, until the intervals of the ratios are narrower than 5 %, or for `--max_secs`.

The system may keep the file in memory that no process has (the page cache), so this measures the
work on examples more than the disk. With `--record`, writes
benchmarks/results/memory-limited_<hardware>_<date>T<time>.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

from benchmarks.hardware import devices
from benchmarks.memory_arms import LARGE, MEMORY_SHARE, SMALL
from benchmarks.race import correctness, harness, keras_models, screen, stopping, weights
from benchmarks.race.workloads import Task, Workload
from benchmarks.reporting import other_tables, records, stats
from gradloop.data.sets import synthetic
from gradloop.usage import EXIT_USAGE

ARMS = {
    name: f"benchmarks.memory_arms.{name}" for name in ("engine", "keras_fit", "keras_fit_tuned")
}
# 968 MiB of records. The net is small: what counts is how fast its input comes. It learns slowly,
# so that losses of other orders are near one another, and not near zero.
WORKLOAD = Workload(
    name="memory-limited", model="dense", dataset="synthetic", input_shape=(64, 64, 3),
    num_classes=10, num_examples=81_920, global_batch_size=32, optimizer="rmsprop", units=32,
    learning_rate=1e-7,
)  # fmt: skip
# With an arena for each of many threads, malloc keeps what was freed, and fit soon dies of it.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}
# Records of the small file, which the large one repeats.
NUM_DIFFERENT = 1024


def prepare(workload: Workload, directory: Path) -> None:
    """Writes both files of records, what they hold, and the initial weights."""
    (x, y), _ = synthetic.load_data(workload.input_shape, workload.num_classes, NUM_DIFFERENT, 1)
    with tf.io.TFRecordWriter(str(directory / SMALL)) as writer:
        for image, label in zip(x, y, strict=True):
            feature = {
                "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image.tobytes()])),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())
    once = (directory / SMALL).read_bytes()
    with (directory / LARGE).open("wb") as file:
        file.writelines([once] * (workload.num_examples // NUM_DIFFERENT))
    image = {"encoding": "raw", "dtype": "uint8", "shape": workload.input_shape}
    spec = {"features": {"image": image, "label": {"dtype": "int64"}}, "x": "image", "y": "label"}
    (directory / "spec.json").write_text(json.dumps(spec), "utf-8")
    keras.utils.set_random_seed(0)
    weights.save(directory / "initial.npz", keras_models.build(workload).get_weights())


def race(workload: Workload, directory: Path, max_secs: float) -> harness.Outcome:
    """Races the arms; one that does not train as fit does is void."""
    task = Task(workload=workload, directory=directory)
    plan = harness.Plan(num_repeats=60, max_secs=max_secs, max_width=stopping.MAX_WIDTH, num_kept=0)
    pythons = dict.fromkeys(ARMS.values(), sys.executable)
    os.environ |= ENVIRONMENT
    outcome = harness.race(task, pythons, plan, screen.show_progress)
    correctness.void_wrong_arms(outcome.results, directory / "initial.npz")
    return outcome


def describe_arm(result: harness.ArmResult, num_examples: int) -> dict[str, Any]:
    """Returns what a record says of an arm: without a speed, if it failed or is void."""
    names = ("status", "reason", "settings", "peak_memory_bytes", "secs", "losses")
    described = {name: getattr(result, name) for name in names}
    if result.is_ok:
        speeds = stats.summarize([num_examples / secs for secs in result.secs])
        described["images_per_sec"] = dataclasses.asdict(speeds)
    return described


def describe(
    results: Sequence[harness.ArmResult], workload: Workload, dataset_bytes: int
) -> dict[str, Any]:
    """Returns what a record says besides the circumstances."""
    ratios = [
        ratio | {name: ratio[name].rpartition(".")[2] for name in ("arm", "over")}
        for ratio in records.make_ratios(results)
    ]
    return {
        "workload": workload.name,
        "workload_config": dataclasses.asdict(workload),
        "num_repeats": max(len(result.secs) for result in results),
        "dataset_bytes": dataset_bytes,
        "allowed_bytes": int(dataset_bytes * MEMORY_SHARE),
        "memory_arms": {r.short_name: describe_arm(r, workload.num_examples) for r in results},
        "ratios": ratios,
    }


def resize(num_examples: int) -> Workload:
    """Returns the workload with so many examples, or a few less, as the large file repeats."""
    if num_examples < NUM_DIFFERENT:
        raise ValueError(f"--num_examples {num_examples}: must be {NUM_DIFFERENT} or more")
    return dataclasses.replace(WORKLOAD, num_examples=num_examples - num_examples % NUM_DIFFERENT)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures and returns the record.

    Raises:
      ValueError: If there are too few examples.
    """
    workload = resize(arguments.num_examples)
    with tempfile.TemporaryDirectory(prefix="gradloop-bench-") as directory:
        prepare(workload, Path(directory))
        outcome = race(workload, Path(directory), arguments.max_secs)
        dataset_bytes = (Path(directory) / LARGE).stat().st_size
    command = shlex.join(["python", "-m", "benchmarks.memory_limited", *arguments.argv])
    described = records.describe_run(devices.short_name("cpu"), command)
    found = describe(outcome.results, workload, dataset_bytes)
    return described | found | {"stopped_by": outcome.stopped_by}


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory_limited",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--num_examples", type=int, default=WORKLOAD.num_examples,
        help=f"of 12 KiB each (default: {WORKLOAD.num_examples})")  # fmt: skip
    add("--max_secs", type=float, default=420.0, help="limit for the rounds (default: 420)")
    add("--record", action="store_true", help="write the record into benchmarks/results")
    add("--output", type=Path, help="write the record to this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and records; returns 0, or 2 for wrong usage."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = make_parser().parse_args(argv)
    arguments.argv = list(argv)
    try:
        record = run(arguments)
        print(other_tables.memory_tables(record))
        if arguments.record or arguments.output:
            path = arguments.output or records.default_path(record)
            records.write(record, path)
            print(f"Record: {path}")
    except (ValueError, OSError) as error:
        print(f"benchmarks.memory_limited: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main())
