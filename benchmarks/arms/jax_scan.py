"""A training loop in JAX with one compiled call per epoch."""

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
        self.found = dict(found or jax_training.find_settings(task, _make_epoch))
        epoch = _make_epoch(task, self.found.get("convolution"))
        self._train = jax.jit(epoch, donate_argnums=0)
        self._examples = jax_training.load_examples(task)
        self._state = jax_training.make_state(task)
        self.settings = jax_training.settings(self.found) | {
            "compiled": "lax.scan over an epoch, donated state"
        }

    @property
    def num_right(self) -> int:
        """The number of correct predictions in the last run."""
        return int(self._state.num_right)

    def run(self, num_epochs: int) -> float:
        """Trains epoch by epoch and returns the mean training loss."""
        state = self._state.reset()
        for _ in range(num_epochs):
            state = self._train(state, self._examples)
        self._state = state
        return float(state.loss) / (num_epochs * self._steps_per_epoch)

    def weights(self) -> list[npt.NDArray[np.generic]]:
        """Returns the model's weights."""
        return [np.array(weight) for weight in self._state.weights]


def _make_epoch(task: Task, convolution: str | None = None) -> jax_training.Step:
    step = jax_training.make_step(task, convolution)

    def train(state: jax_training.State, examples: jax_training.Examples) -> jax_training.State:
        state, _ = jax.lax.scan(
            lambda state, _: (step(state, examples), None),
            state,
            length=task.workload.steps_per_epoch,
        )
        return state

    return train
