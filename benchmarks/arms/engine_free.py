"""The engine with `numerics="fast"` and the settings that `tune` finds fastest: bits of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from benchmarks.arms import engine as engine_arm
from benchmarks.arms import tf_runtime
from benchmarks.race.workloads import Task
from gradloop import engine
from gradloop.engine.tuning.search import tune

# Time for tuning, in the setup: enough for all candidates of a small net.
TUNE_SECS = 100.0


class Arm(engine_arm.Arm):
    """See `benchmarks.arms.ArmProtocol`. Tunes on models of its own before it builds the model."""

    def __init__(self, task: Task, found: Mapping[str, Any] | None = None) -> None:
        tf_runtime.configure(task)
        self._task = task
        self.found: dict[str, Any] = {}
        trials: list[dict[str, Any]] = []
        if found is None:
            found, trials = self._tune()
        self.found = dict(found)
        super().__init__(
            dataclasses.replace(task, precision=self.found.get("precision", task.precision))
        )
        self.bits_of = None
        self.settings |= self.found | {"trials": trials}

    def _tune(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Returns the fastest settings of free bits, and all that was measured."""
        arrays = tf_runtime.load_train_arrays(self._task)
        config = engine.TrainConfig(**(self._config_values() | {"jit_compile": None}))
        tuning = tune(
            self._make_state,
            lambda **changes: self._make_dataset(*arrays, **changes),
            config,
            max_secs=TUNE_SECS,
        )
        return tuning.fast, [dataclasses.asdict(one) for one in tuning.measurements]

    def _make_dataset(self, x: npt.NDArray[Any], y: npt.NDArray[Any], prefetch: int = 4) -> Any:
        return super()._make_dataset(x, y, self.found.get("prefetch", prefetch))

    def _config_values(self) -> dict[str, Any]:
        of_config = {name: value for name, value in self.found.items() if name != "prefetch"}
        return super()._config_values() | {"numerics": "fast"} | of_config
