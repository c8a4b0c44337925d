"""Does the cost of an image depend on the number of images, or on the length of a run?

    python -m benchmarks.scaling

It should not. Trains the workload `tiny` with the engine on 60,000 to 6,000,000 synthetic images
(whole epochs, shuffling included), and for 1,000 to 100,000 steps on few images. The speed of a
machine changes from one second to the next, and a long run meets more of that. So a run is
measured in parts, as long as the smallest run, and after each part another model trains in the
smallest run: a size is compared with what surrounds it in time. Making the largest dataset needs
about 10 GB of memory.

Writes benchmarks/results/scaling_<hardware>_<date>.json, which `benchmarks.reporting.report` shows.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import sys
import time
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
NUM_PAIRS = 200
_WORKLOAD = WORKLOADS["tiny"]
# NumPy's array and TensorFlow's copy of it.
_COPIES = 2

# Microseconds per step in a part of a run, and in the smallest run that followed it.
Pair = tuple[float, float]


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


class Runner:
    """Trains a net of its own on a dataset, in parts.

    Args:
      dataset: Of one or more parts; a run may have more passes than one.
      steps_per_part: Length of a part.
    """

    def __init__(self, dataset: pipeline.EpochDataset, steps_per_part: int) -> None:
        self._dataset, self._steps_per_part = dataset, steps_per_part
        self._state = engine.TrainState(
            keras_models.build(_WORKLOAD),
            keras_models.make_optimizer(_WORKLOAD),
            loss=keras_models.make_loss(_WORKLOAD),
            metrics=keras_models.make_metrics(),
        )
        # Traces the step function, which later calls use again.
        self.run(1)

    def run(self, num_parts: int, after_part: Callable[[], object] = lambda: None) -> list[float]:
        """Returns the microseconds per step in each part of one run.

        Args:
          num_parts: How long the run is.
          after_part: Called after each part, and not measured.
        """
        parts = _Parts(after_part)
        config = engine.TrainConfig(epochs=num_parts, steps_per_epoch=self._steps_per_part)
        engine.fit(self._state, self._dataset, config, hooks=[parts])
        return [secs / self._steps_per_part * 1e6 for secs in parts.secs]


class _Parts(engine.Hook):
    """Measures each part of a run, which is an epoch of it.

    Attributes:
      secs: Of each part.
    """

    def __init__(self, after_part: Callable[[], object]) -> None:
        super().__init__()
        self.secs: list[float] = []
        self._after_part = after_part
        self._begin = 0.0

    def on_epoch_begin(self, info: engine.HookInfo) -> None:
        self._begin = time.perf_counter()

    def on_epoch_end(self, info: engine.HookInfo) -> None:
        self.secs.append(time.perf_counter() - self._begin)
        self._after_part()


def measure(longer: Runner, smallest: Runner, num_parts: int, num_pairs: int) -> list[Pair]:
    """Returns the cost in each part of a run, with that in the smallest run, which followed it.

    Args:
      longer: Makes the run, again and again until there are enough pairs.
      smallest: Makes the smallest run.
      num_parts: Length of the longer run.
      num_pairs: How many pairs are enough.
    """
    parts: list[float] = []
    others: list[float] = []
    while len(parts) < num_pairs:
        parts += longer.run(num_parts, lambda: others.extend(smallest.run(1)))
    return list(zip(parts, others, strict=True))


def summarize(size: int, pairs: Sequence[Pair], divisor: int = 1) -> dict[str, Any]:
    """Returns what a size costs, and the ratio of that to the smallest size.

    Args:
      size: Number of images or steps.
      pairs: Microseconds per step.
      divisor: Of the microseconds: the batch size for figures per image, 1 for figures per step.
    """
    own, smallest = ([usecs / divisor for usecs in one] for one in zip(*pairs, strict=True))
    found = stats.compare_totals(own, smallest)
    return {
        "size": size,
        "usecs": own,
        "usecs_of_smallest": smallest,
        "mean_usecs": statistics.mean(own),
        "ratio": found.mean,
        "low": found.low,
        "high": found.high,
    }


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
    for name in ("max_images", "max_steps", "num_pairs"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} {getattr(arguments, name)}: must be 1 or more")
    batch_size = _WORKLOAD.global_batch_size
    if arguments.max_images < batch_size:
        raise ValueError(
            f"--max_images {arguments.max_images}: must be {batch_size} or more, a batch's size"
        )
    image_sizes = _up_to(NUM_IMAGES, arguments.max_images)
    step_sizes = _up_to(NUM_STEPS, arguments.max_steps)
    check_memory(sum(image_sizes), available_memory())
    few = make_dataset(step_sizes[0] * batch_size)
    steps = measure_all({n: (few, n) for n in step_sizes}, arguments.num_pairs)
    datasets = {n: (make_dataset(n), n // batch_size) for n in image_sizes}
    images = measure_all(datasets, arguments.num_pairs)
    command = shlex.join(["python", "-m", "benchmarks.scaling", *arguments.argv])
    described = records.describe_run(arguments.hardware or devices.short_name("cpu"), command)
    return {
        "workload": "scaling",
        **described,
        "num_pairs": arguments.num_pairs,
        "fingerprint": records.fingerprint(described["environment"], image_sizes),
        "images": [summarize(size, pairs, batch_size) for size, pairs in images.items()],
        "steps": [summarize(size, pairs) for size, pairs in steps.items()],
    }


def measure_all(
    sizes: Mapping[int, tuple[pipeline.EpochDataset, int]], num_pairs: int
) -> dict[int, list[Pair]]:
    """Returns the pairs of each size; see `measure`. The smallest size is compared with itself.

    Args:
      sizes: The dataset and the number of steps of a run, by size; the smallest first.
      num_pairs: Of each size.
    """
    dataset, steps_per_part = next(iter(sizes.values()))
    smallest = Runner(dataset, steps_per_part)
    return {
        size: measure(
            Runner(dataset, steps_per_part), smallest, num_steps // steps_per_part, num_pairs
        )
        for size, (dataset, num_steps) in sizes.items()
    }


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
    add(
        "--num_pairs", type=int, default=NUM_PAIRS,
        help=f"parts of each size that are measured, at least (default: {NUM_PAIRS})",
    )  # fmt: skip
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
