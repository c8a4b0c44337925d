"""Test accuracy of the weights that the arms left, measured after the race."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from benchmarks.race import keras_models, weights
from benchmarks.race.workloads import Task

_BATCH_SIZE = 1000


def evaluate_files(task: Task, files: Sequence[Path]) -> dict[Path, float]:
    """Returns the test accuracy of each file of weights.

    Computed in float32, whatever precision the arms used.
    """
    evaluate = make_evaluator(task)
    return {path: evaluate(path) for path in sorted(set(files))}


def make_evaluator(task: Task) -> Callable[[Path], float]:
    """Returns a function of a file of weights to its accuracy on the test examples."""
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
