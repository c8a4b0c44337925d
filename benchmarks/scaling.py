"""Does the cost of an image depend on the number of images, or on the length of a run?

    python -m benchmarks.scaling

It should not. Trains the workload `tiny` with the engine on 60,000 to 6,000,000 synthetic images
(whole epochs, shuffling included), and for 1,000 to 100,000 steps on few images. All sizes run in
turn, a small size several times in a row, so that each sample takes seconds. Medians are compared.
Making the largest dataset needs about 10 GB of memory.

Writes benchmarks/results/scaling_<hardware>_<date>.json, which `benchmarks.reporting.report` shows.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.hardware import devices
from benchmarks.race import keras_models
from benchmarks.race.workloads import WORKLOADS
from benchmarks.reporting import other_tables, records, stats, tables
from gradloop import engine
from gradloop.data import pipeline
from gradloop.data.sets import synthetic
from gradloop.usage import EXIT_USAGE

NUM_IMAGES = (60_000, 600_000, 6_000_000)
NUM_STEPS = (1_000, 10_000, 100_000)
MIN_IMAGES = 300_000
_WORKLOAD = WORKLOADS["tiny"]
# Steps per epoch in runs that differ in their number of steps.
_STEPS_PER_EPOCH = 1_000
# NumPy's array and TensorFlow's copy of it.
_COPIES = 2

# Trains once and returns the seconds and the number of steps.
Run = Callable[[], tuple[float, int]]


def make_dataset(num_images: int) -> pipeline.EpochDataset:
    """Returns batches of synthetic images, in a new order each epoch."""
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
    """Returns a function that trains a net of its own for some epochs, already traced."""
    state = engine.TrainState(
        keras_models.build(_WORKLOAD),
        keras_models.make_optimizer(_WORKLOAD),
        loss=keras_models.make_loss(_WORKLOAD),
        metrics=keras_models.make_metrics(),
    )
    # Traces the step function, which later calls use again.
    engine.fit(state, dataset, engine.TrainConfig(steps_per_epoch=1))

    def run() -> tuple[float, int]:
        history = engine.fit(state, dataset, engine.TrainConfig(epochs=num_epochs))
        return history.train_secs, history.num_steps

    return run


def measure(
    runs: Mapping[int, Run], num_repeats: int, min_images: int = MIN_IMAGES
) -> dict[int, list[float]]:
    """Returns microseconds per step of each size in each counted round.

    Args:
      runs: By size.
      num_repeats: Counted rounds; one more round, before them, does not count.
      min_images: A size repeats its run until a sample has trained this many images.
    """
    usecs: dict[int, list[float]] = {size: [] for size in runs}
    for index in range(num_repeats + 1):
        for size in list(runs)[:: 1 if index % 2 == 0 else -1]:
            secs, num_steps = 0.0, 0
            while num_steps * _WORKLOAD.global_batch_size < min_images:
                run_secs, run_steps = runs[size]()
                secs, num_steps = secs + run_secs, num_steps + run_steps
            if index > 0:
                usecs[size].append(secs / num_steps * 1e6)
    return usecs


def summarize(usecs: Mapping[int, Sequence[float]], divisor: int = 1) -> list[dict[str, Any]]:
    """Returns samples, median and quartiles of each size.

    Args:
      usecs: Microseconds per step, by size.
      divisor: Of the microseconds: the batch size for figures per image, 1 for figures per step.
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
    """Raises ValueError if the images do not fit into the available memory.

    Args:
      num_images: Of all datasets together.
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
    """Returns the bytes that are available without swapping, or None if that is unknown."""
    try:
        for line in Path("/proc/meminfo").read_text("utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:  # Not Linux.
        pass
    return None


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures and returns the record.

    Raises:
      ValueError: If an argument is illegal, or the images do not fit into memory.
    """
    for name in ("max_images", "max_steps", "num_repeats", "min_images"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} {getattr(arguments, name)}: must be 1 or more")
    if arguments.max_images < _WORKLOAD.global_batch_size:
        raise ValueError(
            f"--max_images {arguments.max_images}: must be {_WORKLOAD.global_batch_size} or more, "
            "the size of a batch"
        )
    image_sizes = _up_to(NUM_IMAGES, arguments.max_images)
    step_sizes = _up_to(NUM_STEPS, arguments.max_steps)
    check_memory(sum(image_sizes), available_memory())
    how_often = (arguments.num_repeats, arguments.min_images)
    steps = measure(_step_runs(step_sizes), *how_often)
    runs = {size: make_run(make_dataset(size)) for size in image_sizes}
    images = measure(runs, *how_often)
    command = shlex.join(["python", "-m", "benchmarks.scaling", *arguments.argv])
    described = records.describe_run(arguments.hardware or devices.short_name("cpu"), command)
    return {
        "workload": "scaling",
        **described,
        "num_repeats": arguments.num_repeats,
        "fingerprint": records.fingerprint(described["environment"], image_sizes),
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
    add = parser.add_argument
    add(
        "--max_images",
        type=int,
        default=NUM_IMAGES[-1],
        help=f"most images (default: {NUM_IMAGES[-1]})",
    )
    add(
        "--max_steps",
        type=int,
        default=NUM_STEPS[-1],
        help=f"most steps (default: {NUM_STEPS[-1]})",
    )
    add("--min_images", type=int, default=MIN_IMAGES,
        help=f"images that a sample trains on at least (default: {MIN_IMAGES})")  # fmt: skip
    add("--num_repeats", type=int, default=5, help="counted repeats (default: 5)")
    add("--hardware", help="the machine's name in the record (default: cpu<cores>)")
    add("--output", type=Path, help="write the record there (default: in benchmarks/results)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes a record; returns 0, or 2 for wrong usage."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = make_parser().parse_args(argv)
    arguments.argv = list(argv)
    try:
        record = run(arguments)
        path = arguments.output or records.default_path(record)
        records.write(record, path)
    except (ValueError, OSError) as error:
        print(f"benchmarks.scaling: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    print(other_tables.scaling_tables(record))
    print(f"Record: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
