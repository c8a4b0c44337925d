"""The engine with `numerics="fast"` and the settings that `tune` finds: other bits than fit's."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy.typing as npt

from benchmarks.arms import engine as engine_arm
from benchmarks.arms import tf_runtime
from benchmarks.race.workloads import Task
from gradloop import engine
from gradloop.engine.tuning.search import tune

# Time for tuning, in the setup.
TUNE_SECS = 40.0


class Arm(engine_arm.Arm):
    """See `benchmarks.arms.ArmProtocol`. Tunes on models of its own before it builds the model."""

    def __init__(self, task: Task) -> None:
        tf_runtime.configure(task)
        self._task = task
        self._choice: dict[str, Any] = {}
        arrays = tf_runtime.load_train_arrays(task)
        config = engine.TrainConfig(**(self._config_values() | {"jit_compile": None}))
        tuning = tune(
            self._make_state,
            lambda **changes: self._make_dataset(*arrays, **changes),
            config,
            max_secs=TUNE_SECS,
        )
        self._choice = tuning.fast
        super().__init__(
            dataclasses.replace(task, precision=tuning.fast.get("precision", task.precision))
        )
        self.claims_bits = False
        self.settings |= self._choice
        self.settings["trials"] = [dataclasses.asdict(one) for one in tuning.measurements]

    def _make_dataset(self, x: npt.NDArray[Any], y: npt.NDArray[Any], prefetch: int = 4) -> Any:
        return super()._make_dataset(x, y, self._choice.get("prefetch", prefetch))

    def _config_values(self) -> dict[str, Any]:
        of_config = {name: value for name, value in self._choice.items() if name != "prefetch"}
        return super()._config_values() | {"numerics": "fast"} | of_config
