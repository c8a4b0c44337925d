"""The engine on a GPU."""

from __future__ import annotations

from benchmarks.arms import engine
from benchmarks.gpu_arms import WithDeviceMemory


class Arm(WithDeviceMemory, engine.Arm):
    """See `benchmarks.arms.ArmProtocol`."""
