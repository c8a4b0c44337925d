"""Keras's `Model.fit` with JAX as its backend, the same model as `keras_fit`'s."""

from __future__ import annotations

import os
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # Read when Keras is imported.

import keras
import numpy as np
import numpy.typing as npt

from benchmarks.arms import jax_device
from benchmarks.race import keras_models
from benchmarks.race import weights as weights_lib
from benchmarks.race.workloads import Task

# Measured: 1.4 times as fast as 1 on small steps, slower on convolutions.
_STEPS_PER_EXECUTION = {"dense": 32, "lstm": 32}


class Arm:
    """See `benchmarks.arms.ArmProtocol`."""

    bits_of = None

    def __init__(self, task: Task) -> None:
        assert keras.backend.backend() == "jax", "Keras was imported before this arm"
        jax_device.configure(task)
        self._workload = task.workload
        # Keras knows no TensorFloat-32.
        keras.config.set_dtype_policy("float32" if task.precision == "tf32" else task.precision)
        keras.utils.set_random_seed(task.seed)
        steps_per_execution = _STEPS_PER_EXECUTION.get(task.workload.model, 1)
        if steps_per_execution > task.workload.steps_per_epoch:
            steps_per_execution = 1
        self._model, loss = _build_with_loss(task)
        self._model.set_weights(weights_lib.load(task.directory / "initial.npz"))
        self._model.compile(
            optimizer=keras_models.make_optimizer(task.workload),
            loss=loss,
            metrics=keras_models.make_metrics(),
            steps_per_execution=steps_per_execution,
        )
        self._arrays = _load_arrays(task)
        self.settings: dict[str, Any] = {
            "steps_per_execution": steps_per_execution,
            "jit_compile": "auto",
            "order": "of the arrays; fit itself does not shuffle",
        }

    def run(self, num_epochs: int) -> float:
        """Calls `fit` once and returns the mean training loss."""
        history = self._model.fit(
            *self._arrays,
            batch_size=self._workload.global_batch_size,
            epochs=num_epochs,
            shuffle=False,
            verbose=0,
        )
        return float(np.mean(history.history["loss"]))

    def weights(self) -> list[npt.NDArray[np.generic]]:
        """Returns the model's weights."""
        weights: list[npt.NDArray[np.generic]] = self._model.get_weights()
        return weights


def _build_with_loss(task: Task) -> tuple[keras.Model, keras.losses.Loss]:
    workload = task.workload
    model = keras_models.build(workload, dropout=task.dropout)
    if workload.loss != "binary_crossentropy":
        return model, keras_models.make_loss(workload)
    # Explicit here: only the TensorFlow backend takes the logits of a softmax by itself; see
    # `Workload.loss`.
    model.layers[-1].activation = keras.activations.linear
    return model, keras.losses.BinaryCrossentropy(from_logits=True)


def _load_arrays(task: Task) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Returns x in [0, 1] and one-hot labels, both float32, in the task's order."""
    arrays = (np.load(task.directory / f"{name}.npy") for name in ("x_train", "y_train", "order"))
    x, y, order = arrays
    x, y = x[order], y[order]
    if x.dtype == np.uint8:
        x = x / np.float32(255)
    return x, keras.utils.to_categorical(y, task.workload.num_classes).astype(np.float32)
