"""The engine with `numerics="fast"`: bits of its own, the same learning."""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks.arms import engine as engine_arm
from benchmarks.workloads import Task
from engine import TrainConfig


class Arm(engine_arm.Arm):
    """See `benchmarks.arms.ArmProtocol`."""

    def __init__(self, task: Task) -> None:
        """Builds the model and the pipeline.

        Raises:
          NotImplementedError: If this engine has no `numerics`.
        """
        if "numerics" not in {field.name for field in dataclasses.fields(TrainConfig)}:
            raise NotImplementedError("this engine has no numerics='fast'")
        super().__init__(task)
        self.claims_bits = False

    def _config_values(self) -> dict[str, Any]:
        return super()._config_values() | {"numerics": "fast"}
