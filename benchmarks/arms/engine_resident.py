"""The engine on one batch that stays in memory: without the pipeline, a ceiling for the engine."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from benchmarks.arms import engine as engine_arm
from benchmarks.arms.constant_data import ConstantDataset
from benchmarks.race.workloads import Task


class Arm(engine_arm.Arm):
    """See `benchmarks.arms.ArmProtocol`."""

    is_ceiling = True

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.bits_of = None

    def _make_dataset(self, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> Any:
        size = self._task.workload.global_batch_size
        return ConstantDataset(next(iter(super()._make_dataset(x[:size], y[:size]))))

    def _config_values(self) -> dict[str, Any]:
        # The dataset has no end.
        return super()._config_values() | {"steps_per_epoch": self._task.workload.steps_per_epoch}
