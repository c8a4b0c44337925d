"""Keras's `Model.fit` with its defaults on the batches of arrays: the reference of all arms."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from benchmarks.arms import tf_runtime
from benchmarks.race import keras_models
from benchmarks.race.workloads import Task


def compile_model(
    model: keras.Model, task: Task, *, steps_per_execution: int = 1, jit_compile: Any = "auto"
) -> None:
    """Compiles a model as the workload says. Context: inside the strategy's scope.

    Args:
      model: Compiled in place.
      task: Names the optimizer and the loss.
      steps_per_execution: Keras's.
      jit_compile: Keras's: a bool or "auto".
    """
    model.compile(
        optimizer=keras_models.make_optimizer(task.workload),
        loss=keras_models.make_loss(task.workload),
        metrics=keras_models.make_metrics(),
        steps_per_execution=steps_per_execution,
        jit_compile=jit_compile,
    )


class Arm:
    """See `benchmarks.arms.ArmProtocol`."""

    def __init__(self, task: Task) -> None:
        tf_runtime.configure(task)
        self._task = task
        self.bits_of = "keras_fit" if task.workload.has_steady_bits else None
        self._x, self._y = tf_runtime.load_fit_arrays(task)
        self._dataset = tf_runtime.make_fit_dataset(
            task, self._x, self._y, shuffle=not task.has_replicas
        )
        self.settings: dict[str, Any] = {}
        self._build(steps_per_execution=1)

    def _build(self, *, steps_per_execution: int) -> None:
        """Builds and compiles the model."""
        jit_compile = "auto" if self._task.jit_compile is None else self._task.jit_compile
        options = {"steps_per_execution": steps_per_execution, "jit_compile": jit_compile}
        with tf_runtime.scope(self._task):
            self._model = tf_runtime.build_model(self._task)
            compile_model(self._model, self._task, **options)
        self.settings |= options

    def run(self, num_epochs: int) -> float:
        """Calls `fit` once and returns the mean training loss."""
        # The global seed is not set again here: that empties TensorFlow's cache of functions, and
        # the next call optimizes its graph once more, for seconds where the net is large.
        history = self._model.fit(self._dataset, epochs=num_epochs, verbose=0)
        return float(np.mean(history.history["loss"]))

    def weights(self) -> list[npt.NDArray[np.generic]]:
        """Returns the model's weights."""
        weights: list[npt.NDArray[np.generic]] = self._model.get_weights()
        return weights
