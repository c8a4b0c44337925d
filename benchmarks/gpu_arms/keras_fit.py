"""`keras.Model.fit` on a GPU."""

from __future__ import annotations

from benchmarks.arms import keras_fit
from benchmarks.gpu_arms import WithDeviceMemory


class Arm(WithDeviceMemory, keras_fit.Arm):
    """See `benchmarks.arms.ArmProtocol`."""
