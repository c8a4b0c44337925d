"""The engine with its default settings: fit's bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.arms import tf_runtime
from benchmarks.race import keras_models
from benchmarks.race.workloads import Task
from gradloop.data import pipeline

# By name: `engine` imports what is taken from it when it is first used, which is no set-up.
from gradloop.engine import TrainConfig, TrainState, fit


class Arm:
    """See `benchmarks.arms.ArmProtocol`."""

    def __init__(self, task: Task) -> None:
        tf_runtime.configure(task)
        self._task = task
        self.bits_of = "keras_fit" if task.workload.has_steady_bits else None
        self._state = self._make_state()
        self._dataset = self._make_dataset(*tf_runtime.load_train_arrays(task))
        self.settings: dict[str, Any] = dict(self._config_values())

    def _make_state(self) -> TrainState:
        workload = self._task.workload
        with tf_runtime.scope(self._task):
            return TrainState(
                tf_runtime.build_model(self._task),
                keras_models.make_optimizer(workload),
                loss=keras_models.make_loss(workload),
                metrics=keras_models.make_metrics(),
            )

    def _make_dataset(self, x: npt.NDArray[Any], y: npt.NDArray[Any], prefetch: int = 4) -> Any:
        return pipeline.make_dataset(
            x,
            y,
            global_batch_size=self._task.workload.global_batch_size,
            num_classes=self._task.workload.num_classes,
            shuffle=True,
            seed=self._task.seed,
            order="keras",
            prefetch=prefetch,
        )

    def _config_values(self) -> dict[str, Any]:
        """Returns the fields that differ from the defaults of `TrainConfig`."""
        task = self._task
        values: dict[str, Any] = {"global_batch_size": task.workload.global_batch_size}
        if task.precision != "tf32":
            values["precision"] = task.precision
        if task.jit_compile is not None:
            values["jit_compile"] = task.jit_compile
        return values

    def run(self, num_epochs: int) -> float:
        """Calls `engine.fit` once and returns the mean training loss."""
        config = TrainConfig(epochs=num_epochs, **self._config_values())
        history = fit(self._state, self._dataset, config)
        return float(np.mean(history.history["loss"]))

    def weights(self) -> list[npt.NDArray[np.generic]]:
        """Returns the model's weights."""
        weights: list[npt.NDArray[np.generic]] = self._state.model.get_weights()
        return weights
