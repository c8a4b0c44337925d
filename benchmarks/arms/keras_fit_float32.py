"""`keras_fit` in float32 whatever the task's precision: what a lower precision is worth."""

from __future__ import annotations

import dataclasses

from benchmarks.arms import keras_fit
from benchmarks.race.workloads import Task


class Arm(keras_fit.Arm):
    """See `benchmarks.arms.ArmProtocol`."""

    def __init__(self, task: Task) -> None:
        """Builds and compiles the model in float32."""
        super().__init__(dataclasses.replace(task, precision="float32"))
        self.claims_bits = False
