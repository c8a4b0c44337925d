"""`keras.Model.fit` on a GPU; where it has replicas, without XLA, with which it fails."""

from __future__ import annotations

import dataclasses

from benchmarks.arms import keras_fit
from benchmarks.gpu_arms import WithDeviceMemory
from benchmarks.race.workloads import Task


class Arm(WithDeviceMemory, keras_fit.Arm):
    """See `benchmarks.arms.ArmProtocol`."""

    def __init__(self, task: Task) -> None:
        can_compile = not task.has_replicas
        super().__init__(task if can_compile else dataclasses.replace(task, jit_compile=False))
