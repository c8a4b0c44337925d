"""How right the weights are on the test images, measured apart from the arms and their clocks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from benchmarks.race import keras_models, weights
from benchmarks.race.harness import ArmResult
from benchmarks.race.workloads import Task

TARGETS = (0.97, 0.99)
_BATCH_SIZE = 1000


def evaluate_files(task: Task, files: Sequence[Path]) -> dict[Path, float]:
    """Returns for each file of weights the share of test examples that they classify rightly.

    In float32, whatever the arms computed in. A file that is named twice is evaluated once.
    """
    evaluate = make_evaluator(task)
    return {path: evaluate(path) for path in sorted(set(files))}


def make_evaluator(task: Task) -> Callable[[Path], float]:
    """Returns file of weights -> accuracy on the test examples."""
    model = keras_models.build(task.workload)
    x = np.load(task.directory / "x_test.npy")
    y = np.load(task.directory / "y_test.npy")
    if x.dtype == np.uint8:
        x = x / np.float32(255)

    @tf.function(autograph=False)
    def predict(batch: tf.Tensor) -> tf.Tensor:
        return tf.argmax(model(batch, training=False), axis=-1)

    def evaluate(path: Path) -> float:
        model.set_weights(weights.load(path))
        starts = range(0, len(x), _BATCH_SIZE)
        predicted = [predict(tf.constant(x[i : i + _BATCH_SIZE])).numpy() for i in starts]
        return float(np.mean(np.concatenate(predicted) == y))

    return evaluate


def secs_to_accuracy(result: ArmResult, accuracies: Sequence[float], target: float) -> float | None:
    """Returns set-up and training until an accuracy is seen for the first time, or None.

    What happens once, such as compiling, is in it: it is in the set-up or in the first run.
    """
    secs = itertools.accumulate([*result.warmup_secs, *result.secs])
    for so_far, accuracy in zip(secs, accuracies, strict=True):
        if accuracy >= target:
            return (result.setup_secs or 0.0) + so_far
    return None
