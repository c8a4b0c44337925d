"""The engine on a GPU."""

from __future__ import annotations

from benchmarks.arms import engine
from benchmarks.gpu_arms import WithDeviceMemory
from benchmarks.race.workloads import Task


class Arm(WithDeviceMemory, engine.Arm):
    """See `benchmarks.arms.ArmProtocol`."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        if task.has_replicas and task.jit_compile:
            self.bits_of = None  # fit has no XLA there
