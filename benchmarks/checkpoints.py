"""What does a checkpoint cost? Time and memory of a save and of a restore.

    python -m benchmarks.checkpoints

Saves a compiled model of about 29 million parameters with its optimizer, in turn, by the engine (at
once, and by a thread), by `model.save_weights` with an fsync, and by `tf.train.Checkpoint.write`,
and reads it back. Prints medians and quartiles of the seconds, the most memory that was taken
beside the state, and the median of the ratios to Keras of the same round.

    python -m benchmarks.checkpoints --endure 50000

Trains the dense net for so many steps instead, with a save each 500, and prints how memory grew
after the first thousand and how many steps a second there were in each fifth.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from benchmarks.reporting.stats import summarize
from gradloop import engine
from gradloop.data import pipeline
from gradloop.engine.storage.checkpoint_folder import CheckpointFolder
from gradloop.engine.storage.saves import Saves
from gradloop.engine.storage.snapshot import capture
from gradloop.models import registry

MIB = 1 << 20
WIDTH = 3800  # of three layers: 29 million parameters
KERAS_SAVE, KERAS_LOAD = "model.save_weights, fsync", "model.load_weights"
SAVE, RESTORE = "engine: save", "engine: restore"
COPY, THREAD = (
    "engine: asynchronous save, training waits",
    "engine: asynchronous save, until it ends",
)
TF_SAVE, TF_LOAD = "tf.train.Checkpoint.write", "tf.train.Checkpoint.read"


class Measurement(NamedTuple):
    """Seconds, and the most bytes of memory that were taken beside the state."""

    secs: float
    peak_bytes: int


class MemoryPeak(threading.Thread):
    """Watches the resident memory of this process, each millisecond. Linux has the file."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._ended = threading.Event()
        self._before = self._most = _resident_bytes()

    def run(self) -> None:
        """Looks until `end`."""
        while not self._ended.wait(1e-3):
            self._most = max(self._most, _resident_bytes())

    def end(self) -> int:
        """Returns the most bytes above those of the beginning."""
        self._ended.set()
        self.join()
        return max(self._most, _resident_bytes()) - self._before


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(work: Callable[[], object]) -> Measurement:
    """Calls `work` once."""
    peak = MemoryPeak()
    peak.start()
    started = time.perf_counter()
    work()
    secs = time.perf_counter() - started
    return Measurement(secs, peak.end())


def make_state(width: int) -> engine.TrainState:
    """Returns a state whose model has about `2 * width**2` parameters, built."""
    layers = [keras.layers.Dense(units) for units in (width, width, width, 10)]
    state = engine.TrainState(keras.Sequential([keras.Input((10,)), *layers]), "adam", loss="mse")
    state.build((tf.TensorSpec((None, 10)), tf.TensorSpec((None, 10))))
    return state


def measure_round(
    state: engine.TrainState, saves: Saves, directory: Path
) -> dict[str, Measurement]:
    """Measures every way of saving and restoring once, in turn."""
    model, folder = state.model, saves.folder
    weights, prefix = directory / "keras.weights.h5", str(directory / "tf" / "checkpoint")
    checkpoint = tf.train.Checkpoint(model=model)

    def save_weights() -> None:
        model.save_weights(weights)
        with weights.open("rb") as file:
            os.fsync(file.fileno())

    def start() -> None:
        saves.start(capture(state), is_regular=True, is_best=False)

    return {
        KERAS_SAVE: measure(save_weights),
        SAVE: measure(lambda: engine.save_checkpoint(directory / "engine.npz", state)),
        TF_SAVE: measure(lambda: checkpoint.write(prefix)),
        COPY: (blocked := measure(start)),
        THREAD: _added(blocked, measure(lambda: saves.settle(wait=True))),
        KERAS_LOAD: measure(lambda: model.load_weights(weights)),
        RESTORE: measure(lambda: engine.restore_checkpoint(folder.directory, state)),
        TF_LOAD: measure(lambda: checkpoint.read(prefix).assert_consumed()),
    }


def _added(first: Measurement, second: Measurement) -> Measurement:
    return Measurement(first.secs + second.secs, first.peak_bytes + second.peak_bytes)


def report(rounds: Sequence[dict[str, Measurement]]) -> Iterator[str]:
    """Yields the lines of the table."""
    yield "| | seconds | quartiles | memory, MiB | of Keras's seconds |"
    yield "|---|---|---|---|---|"
    for name in rounds[0]:
        secs = summarize([one[name].secs for one in rounds])
        peak = max(one[name].peak_bytes for one in rounds[1:] or rounds) / MIB
        keras_name = KERAS_LOAD if name in (KERAS_LOAD, RESTORE, TF_LOAD) else KERAS_SAVE
        ratio = statistics.median(one[name].secs / one[keras_name].secs for one in rounds)
        quartiles = f"{secs.quartile_1:.3f} to {secs.quartile_3:.3f}"
        yield f"| {name} | {secs.median:.3f} | {quartiles} | {peak:.0f} | {ratio:.2f} |"


class Endurance(engine.Hook):
    """Notes time and memory each `every_steps` steps, when that step is being saved."""

    def __init__(self, every_steps: int) -> None:
        self.every_steps = every_steps
        self.times: list[float] = []
        self.bytes: list[int] = []

    def on_execution_end(self, info: engine.HookInfo) -> None:
        """Notes both."""
        if info.progress.num_steps_completed % (self.every_steps or 1) == 0:
            self.times.append(time.perf_counter())
            self.bytes.append(_resident_bytes())


def endure(num_steps: int, directory: Path, every_steps: int = 500) -> list[str]:
    """Trains the dense net and saves it again and again; returns the lines of a report."""
    recipe = registry.get("dense")
    images = np.random.default_rng(0).integers(0, 256, (12_800, 28, 28)).astype("uint8")
    labels = np.random.default_rng(1).integers(0, 10, len(images))
    dataset = pipeline.make_dataset(
        images[..., None], labels, global_batch_size=128, num_classes=10, shuffle=True
    )
    state = engine.TrainState(
        recipe.build((28, 28, 1), 10), recipe.make_optimizer(None), loss=recipe.make_loss()
    )
    hook = Endurance(every_steps)
    config = engine.TrainConfig(epochs=num_steps // dataset.num_batches)
    save = engine.SaveCheckpoint(directory, every_steps=every_steps, every_epochs=None)
    engine.fit(state, dataset, config, hooks=[save, hook])
    after = hook.bytes[min(1000 // every_steps, len(hook.bytes)) - 1 :]
    fifth = max(1, len(hook.times) // 5)
    parts = [hook.times[i : i + fifth + 1] for i in range(0, len(hook.times) - fifth, fifth)]
    speeds = [every_steps * (len(t) - 1) / (t[-1] - t[0]) for t in parts]
    return [
        f"{state.progress.num_steps_completed:,} steps, {len(hook.times)} saves",
        f"memory after the first thousand: {after[0] / MIB:.1f} MiB, at the end "
        f"{after[-1] / MIB:.1f} MiB ({100 * (after[-1] / after[0] - 1):+.2f} %)",
        f"steps/s in each fifth: {', '.join(f'{speed:,.0f}' for speed in speeds)}",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--width", type=int, default=WIDTH, help="of the three layers")
    parser.add_argument("--num_rounds", type=int, default=9, help="one more comes first")
    parser.add_argument("--directory", type=Path, help="on the disk to measure; a temporary one")
    parser.add_argument("--endure", type=int, metavar="STEPS", help="train and save instead")
    flags = parser.parse_args(arguments)
    if flags.endure is not None:
        with tempfile.TemporaryDirectory(dir=flags.directory) as name:
            print("\n".join(endure(flags.endure, Path(name))))
        return 0
    state = make_state(flags.width)
    num_bytes = capture(state).num_bytes
    largest = max(v.value.numpy().nbytes for _, v in state.named_variables())
    print(
        f"{state.model.count_params() / 1e6:.1f} million parameters, {num_bytes / MIB:.0f} MiB "
        f"with the optimizer; the largest variable has {largest / MIB:.0f} MiB"
    )
    with tempfile.TemporaryDirectory(dir=flags.directory) as name:
        folder = CheckpointFolder(Path(name) / "checkpoints")
        saves = Saves(folder, max_to_keep=1, asynchronous=True, is_fatal=True)
        rounds = [measure_round(state, saves, Path(name)) for _ in range(flags.num_rounds + 1)][
            1:
        ]  # the first one warms up
        saves.close()
    print("\n".join(report(rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
