"""`keras_fit` in float32, whatever the task's precision: shows the gain of a lower precision."""

from __future__ import annotations

import dataclasses

from benchmarks.arms import keras_fit
from benchmarks.race.workloads import Task


class Arm(keras_fit.Arm):
    """See `benchmarks.arms.ArmProtocol`."""

    def __init__(self, task: Task) -> None:
        super().__init__(dataclasses.replace(task, precision="float32"))
        self.bits_of = None
