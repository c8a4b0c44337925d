"""The engine with the optimizer's update compiled by XLA: fit's bits."""

from __future__ import annotations

from typing import Any

from benchmarks.arms import engine as engine_arm
from benchmarks.race.workloads import Task


class Arm(engine_arm.Arm):
    """See `benchmarks.arms.ArmProtocol`."""

    def __init__(self, task: Task) -> None:
        if task.workload.optimizer == "rmsprop":
            raise NotImplementedError("RMSprop, whose compiled update has other bits")
        super().__init__(task)

    def _config_values(self) -> dict[str, Any]:
        return super()._config_values() | {"compile_update": True}
