"""`keras.Model.fit` on a GPU once more: do its own bits vary from run to run?"""

from __future__ import annotations

from benchmarks.gpu_arms.keras_fit import Arm

__all__ = ["Arm"]
