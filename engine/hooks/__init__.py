"""Hooks: what happens around the training loop. They observe, and may ask the loop to stop.

The order in the list is the order of the calls. Put `StopOnNaN` before `SaveCheckpoint`, and
`EarlyStopping(restore_best_weights=True)` too, so that what they do is done when the end is saved.
"""

from ..history import StopKind
from .base import Hook, HookInfo, LambdaHook
from .gradient_norm import GradientNorm
from .keras_callbacks import KerasCallbacks
from .profiling import Profile
from .progress_bar import ProgressBar
from .recording import SaveCheckpoint, WriteMetrics
from .stopping import EarlyStopping, StopOnNaN, StopOnSignal

__all__ = [
    "EarlyStopping",
    "GradientNorm",
    "Hook",
    "HookInfo",
    "KerasCallbacks",
    "LambdaHook",
    "Profile",
    "ProgressBar",
    "SaveCheckpoint",
    "StopKind",
    "StopOnNaN",
    "StopOnSignal",
    "WriteMetrics",
]
