"""The engine on the project's own pipeline of files: each epoch in another permutation."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.arms import tf_runtime
from benchmarks.memory_arms import LARGE, SMALL, limit_memory
from benchmarks.race import keras_models
from benchmarks.race.workloads import Task
from gradloop import data
from gradloop.data.own import FileOptions
from gradloop.engine import TrainConfig, TrainState, fit


class Arm:
    """See `benchmarks.arms.ArmProtocol`."""

    bits_of = None

    def __init__(self, task: Task) -> None:
        tf_runtime.configure(task)
        os.environ["XDG_CACHE_HOME"] = str(task.directory)  # the index goes with the file
        self._task = task
        self._state = TrainState(
            tf_runtime.build_model(task),
            keras_models.make_optimizer(task.workload),
            loss=keras_models.make_loss(task.workload),
            metrics=keras_models.make_metrics(),
        )
        self._dataset = self._make_dataset(SMALL)
        self.run(1)
        self.settings: dict[str, Any] = limit_memory(task)
        self._dataset = self._make_dataset(LARGE)

    def _make_dataset(self, name: str) -> Any:
        options = FileOptions(in_memory=False)
        splits = data.load(str(self._task.directory / name), options=options)
        return splits.train.make_dataset(
            global_batch_size=self._task.workload.global_batch_size, shuffle=True
        )

    def run(self, num_epochs: int) -> float:
        """Calls `engine.fit` once and returns the mean training loss."""
        size = self._task.workload.global_batch_size
        config = TrainConfig(epochs=num_epochs, global_batch_size=size)
        history = fit(self._state, self._dataset, config)
        return float(np.mean(history.history["loss"]))

    def weights(self) -> list[npt.NDArray[np.generic]]:
        """Returns the model's weights."""
        weights: list[npt.NDArray[np.generic]] = self._state.model.get_weights()
        return weights
