"""Hooks: what happens around the training loop. They observe, and may ask the loop to stop.

The order in the list is the order of the calls. `SaveCheckpoint` may stand anywhere: it saves when
all hooks know what has happened.
"""

from typing import TYPE_CHECKING

from gradloop import lazy

# As in `gradloop.engine`: the loop imports `hooks.base`, and nothing that comes after the loop.
if TYPE_CHECKING:
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

_HOMES = {
    ".history": ["StopKind"],
    "base": ["Hook", "HookInfo", "LambdaHook"],
    "gradient_norm": ["GradientNorm"],
    "interruption": ["StopAfterSteps", "StopAfterTime", "StopOnSignal"],
    "keras_callbacks": ["KerasCallbacks"],
    "nonfinite": ["OnNonfinite", "StopOnNaN"],
    "profiling": ["Profile"],
    "progress_bar": ["ProgressBar"],
    "recording": ["WriteMetrics"],
    "saving": ["SaveCheckpoint"],
    "state_digest": ["StateDigest"],
    "stopping": ["EarlyStopping"],
    "watchdog": ["Watchdog"],
}

__getattr__, __dir__ = lazy.attach(__name__, _HOMES)
