"""The engine with `numerics="fast"` and what `tune` finds: other bits, the same learning."""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks.arms import engine as engine_arm
from benchmarks.arms import tf_runtime
from benchmarks.race.workloads import Task
from gradloop import engine
from gradloop.engine.tuning.search import tune

# Of the measuring that precedes the race.
TUNE_SECS = 40.0


class Arm(engine_arm.Arm):
    """See `benchmarks.arms.ArmProtocol`."""

    def __init__(self, task: Task) -> None:
        """Finds the settings on copies of the model, then builds the model and the pipeline."""
        tf_runtime.configure(task)
        self._task = task
        self._arrays = tf_runtime.load_train_arrays(task)
        config = engine.TrainConfig(**(self._config_values() | {"jit_compile": None}))
        tuning = tune(
            self._make_state,
            lambda **changes: self._make_dataset(*self._arrays, **changes),
            config,
            max_secs=TUNE_SECS,
        )
        self._choice = tuning.fast
        super().__init__(
            dataclasses.replace(task, precision=tuning.fast.get("precision", task.precision))
        )
        self.claims_bits = False
        self.settings["trials"] = [dataclasses.asdict(one) for one in tuning.measurements]

    def _config_values(self) -> dict[str, Any]:
        choice = getattr(self, "_choice", {})
        of_config = {name: value for name, value in choice.items() if name != "prefetch"}
        return super()._config_values() | {"numerics": "fast"} | of_config
