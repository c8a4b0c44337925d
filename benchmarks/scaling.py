"""Does the cost of an image depend on how many there are, or on how long the run is? It should not.

    python -m benchmarks.scaling

Trains the workload `tiny` with the engine on 60,000 to 6,000,000 synthetic images (whole epochs,
the order of each included), and for 1,000 to 100,000 steps on few of them. All sizes run by turns,
a small one several times in a row, so that a sample is of seconds, and medians are compared. The
largest data set needs about 10 GB of memory while it is made.

Writes benchmarks/results/scaling_<hardware>_<date>.json, which `benchmarks.reporting.report` shows.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import RESULTS, ROOT
from benchmarks.race import keras_models
from benchmarks.race.workloads import WORKLOADS
from benchmarks.reporting import stats, tables
from gradloop import engine
from gradloop.data import pipeline
from gradloop.data.sets import synthetic
from gradloop.engine.runtime import describe_environment
from gradloop.files import json_text
from gradloop.usage import EXIT_USAGE

NUM_IMAGES = (60_000, 600_000, 6_000_000)
NUM_STEPS = (1_000, 10_000, 100_000)
_WORKLOAD = WORKLOADS["tiny"]
# Steps of an epoch in runs that differ in their number of steps.
_STEPS_PER_EPOCH = 1_000
# NumPy's array and TensorFlow's copy of it.
_COPIES = 2
# Small sizes are repeated until a sample has trained that many images.
_MIN_IMAGES = 300_000

# Trains once and returns the seconds and the steps that it took.
Run = Callable[[], tuple[float, int]]


def make_dataset(num_images: int) -> pipeline.EpochDataset:
    """Returns batches of synthetic images, in another order each epoch."""
    workload = _WORKLOAD
    (x, y), _ = synthetic.load_data(
        workload.input_shape[:2], workload.num_classes, num_train=num_images, num_test=1
    )
    return pipeline.make_dataset(
        x,
        y,
        global_batch_size=workload.global_batch_size,
        num_classes=workload.num_classes,
        shuffle=True,
        drop_remainder=True,
    )


def make_run(dataset: pipeline.EpochDataset, num_epochs: int = 1) -> Run:
    """Returns what trains a net of its own for some epochs, without tracing."""
    state = engine.TrainState(
        keras_models.build(_WORKLOAD),
        keras_models.make_optimizer(_WORKLOAD),
        loss=keras_models.make_loss(_WORKLOAD),
        metrics=keras_models.make_metrics(),
    )
    # Traces the graph; later calls find it.
    engine.fit(state, dataset, engine.TrainConfig(steps_per_epoch=1))

    def run() -> tuple[float, int]:
        history = engine.fit(state, dataset, engine.TrainConfig(epochs=num_epochs))
        return history.train_secs, history.num_steps

    return run


def measure(runs: Mapping[int, Run], num_repeats: int) -> dict[int, list[float]]:
    """Returns microseconds a step of each size in each counted round, the first left out."""
    usecs: dict[int, list[float]] = {size: [] for size in runs}
    for index in range(num_repeats + 1):
        for size in list(runs)[:: 1 if index % 2 == 0 else -1]:
            secs, num_steps = 0.0, 0
            while num_steps * _WORKLOAD.global_batch_size < _MIN_IMAGES:
                run_secs, run_steps = runs[size]()
                secs, num_steps = secs + run_secs, num_steps + run_steps
            if index > 0:
                usecs[size].append(secs / num_steps * 1e6)
    return usecs


def summarize(usecs: Mapping[int, Sequence[float]], divisor: int = 1) -> list[dict[str, Any]]:
    """Returns samples, median and quartiles of each size.

    Args:
      usecs: Microseconds a step, by size.
      divisor: What makes of a step what the figures are of: the batch size for images.
    """
    rows = []
    for size, samples in usecs.items():
        values = [sample / divisor for sample in samples]
        found = stats.summarize(values)
        rows.append(
            {
                "size": size,
                "usecs": values,
                "median_usecs": found.median,
                "quartile_1": found.quartile_1,
                "quartile_3": found.quartile_3,
            }
        )
    return rows


def check_memory(num_images: int, available: int | None) -> None:
    """Raises ValueError if the images would not fit into the memory that is left.

    Args:
      num_images: Of the largest data set.
      available: Bytes; None: unknown.
    """
    height, width, *_ = _WORKLOAD.input_shape
    needed = _COPIES * num_images * height * width
    if available is not None and needed > 0.9 * available:
        raise ValueError(
            f"--max_images {num_images}: needs {tables.gigabytes(needed)} of memory, and "
            f"{tables.gigabytes(available)} are free. Pass a smaller --max_images."
        )


def available_memory() -> int | None:
    """Returns the bytes that can be had without swapping, or None if the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text("utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:  # not Linux
        pass
    return None


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures and returns the record.

    Raises:
      ValueError: If an argument is illegal, or the images do not fit into memory.
    """
    for name in ("max_images", "max_steps", "num_repeats"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} {getattr(arguments, name)}: must be 1 or more")
    if arguments.max_images < _WORKLOAD.global_batch_size:
        raise ValueError(
            f"--max_images {arguments.max_images}: must be {_WORKLOAD.global_batch_size} or more, "
            "which make a batch"
        )
    image_sizes = _up_to(NUM_IMAGES, arguments.max_images)
    step_sizes = _up_to(NUM_STEPS, arguments.max_steps)
    check_memory(sum(image_sizes), available_memory())
    steps = measure(_step_runs(step_sizes), arguments.num_repeats)
    runs = {size: make_run(make_dataset(size)) for size in image_sizes}
    images = measure(runs, arguments.num_repeats)
    environment = describe_environment()
    return {
        "workload": "scaling",
        "hardware": arguments.hardware or f"cpu{environment['num_cores']}",
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "-m", "benchmarks.scaling", *arguments.argv]),
        "num_repeats": arguments.num_repeats,
        "environment": environment,
        "fingerprint": hashlib.sha256(json_text([environment, image_sizes]).encode()).hexdigest(),
        "images": summarize(images, _WORKLOAD.global_batch_size),
        "steps": summarize(steps),
    }


def _step_runs(sizes: Sequence[int]) -> dict[int, Run]:
    steps_per_epoch = min(_STEPS_PER_EPOCH, *sizes)
    dataset = make_dataset(steps_per_epoch * _WORKLOAD.global_batch_size)
    return {size: make_run(dataset, -(-size // steps_per_epoch)) for size in sizes}


def _up_to(sizes: Sequence[int], maximum: int) -> list[int]:
    return [size for size in sizes if size <= maximum] or [maximum]


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--max_images", type=int, default=NUM_IMAGES[-1])
    parser.add_argument("--max_steps", type=int, default=NUM_STEPS[-1])
    parser.add_argument("--num_repeats", type=int, default=5, help="counted ones")
    parser.add_argument("--hardware", help="the machine's name in the file's; default: cpu<cores>")
    parser.add_argument("--output", type=Path, help="file; default: in benchmarks/results")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes a record; returns 0, or 2 for wrong usage."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = make_parser().parse_args(argv)
    arguments.argv = list(argv)
    try:
        record = run(arguments)
        name = f"scaling_{record['hardware']}_{record['date']}.json"
        path = arguments.output or ROOT / RESULTS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json_text(record, indent=2) + "\n", "utf-8")
    except (ValueError, OSError) as error:
        print(f"benchmarks.scaling: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    print(tables.scaling_tables(record))
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
