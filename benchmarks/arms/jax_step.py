"""A training loop in JAX with one compiled call per step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from benchmarks.arms import jax_training
from benchmarks.race.workloads import Task


class Arm:
    """See `benchmarks.arms.ArmProtocol`."""

    bits_of = None

    def __init__(self, task: Task, found: Mapping[str, Any] | None = None) -> None:
        self._steps_per_epoch = task.workload.steps_per_epoch
        self.found = dict(found or jax_training.find_settings(task, jax_training.make_step))
        step = jax_training.make_step(task, self.found.get("convolution"))
        self._step = jax.jit(step, donate_argnums=0)
        self._examples = jax_training.load_examples(task)
        self._state = jax_training.make_state(task)
        self.settings = jax_training.settings(self.found) | {
            "compiled": "a call per step, donated state"
        }

    @property
    def num_right(self) -> int:
        """The number of correct predictions in the last run."""
        return int(self._state.num_right)

    def run(self, num_epochs: int) -> float:
        """Trains batch by batch and returns the mean training loss."""
        state, num_steps = self._state.reset(), num_epochs * self._steps_per_epoch
        for _ in range(num_steps):
            state = self._step(state, self._examples)
        self._state = state
        return float(state.loss) / num_steps

    def weights(self) -> list[npt.NDArray[np.generic]]:
        """Returns the model's weights."""
        return [np.array(weight) for weight in self._state.weights]
