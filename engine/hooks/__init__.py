"""Hooks: what happens around the training loop. They observe, and may ask the loop to stop.

The order in the list is the order of the calls. `SaveCheckpoint` may stand anywhere: it saves when
all hooks know what has happened.
"""

from ..history import StopKind
from .base import Hook, HookInfo, LambdaHook
from .gradient_norm import GradientNorm
from .interruption import StopAfterSteps, StopAfterTime, StopOnSignal
from .keras_callbacks import KerasCallbacks
from .nonfinite import OnNonfinite, StopOnNaN
from .profiling import Profile
from .progress_bar import ProgressBar
from .recording import WriteMetrics
from .saving import SaveCheckpoint
from .state_digest import StateDigest
from .stopping import EarlyStopping
from .watchdog import Watchdog

__all__ = [
    "EarlyStopping",
    "GradientNorm",
    "Hook",
    "HookInfo",
    "KerasCallbacks",
    "LambdaHook",
    "OnNonfinite",
    "Profile",
    "ProgressBar",
    "SaveCheckpoint",
    "StateDigest",
    "StopAfterSteps",
    "StopAfterTime",
    "StopKind",
    "StopOnNaN",
    "StopOnSignal",
    "Watchdog",
    "WriteMetrics",
]
