"""The engine on a GPU under TensorFlow's profiler: how long do its devices do nothing?"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.arms import engine as engine_arm
from benchmarks.hardware.device_profile import device_shares
from gradloop import engine
from gradloop.engine.profiling.xplane import read_trace

_MAX_STEPS = 20


class Executions(engine.Profile):
    """Profiles executions as they are, of several steps: a call a step would idle more."""

    def max_steps(self, num_steps_completed: int) -> int | None:
        """Lets an execution end before the first step, and none after it."""
        asked = super().max_steps(num_steps_completed)
        return asked if num_steps_completed - self._num_before < self.first_step - 1 else None


class Arm(engine_arm.Arm):
    """See `benchmarks.arms.ArmProtocol`; what it found is its setting "profile"."""

    def run(self, num_epochs: int) -> float:
        """Trains, with the second half of the first epoch profiled, and returns the mean loss."""
        first = self._task.workload.steps_per_epoch // 2 + 1
        with tempfile.TemporaryDirectory(prefix="gradloop-profile-") as directory:
            last = min(first + _MAX_STEPS - 1, self._task.workload.steps_per_epoch)
            hook = Executions(directory, first, last, line=lambda text: None)
            config = engine.TrainConfig(epochs=num_epochs, **self._config_values())
            history = engine.fit(self._state, self._dataset, config, hooks=[hook])
            self.settings["profile"] = device_shares(read_trace(Path(directory)))
        return float(np.mean(history.history["loss"]))
