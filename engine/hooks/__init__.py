"""Hooks: what happens around the training loop. They observe, and may ask the loop to stop.

The order in the list is the order of the calls. Put `StopOnNaN` before `SaveCheckpoint`, and
`EarlyStopping(restore_best_weights=True)` too, so that what they do is done when the end is saved.
"""

from engine.hooks.base import DIVERGENCE, INTERRUPTED, Hook, HookInfo, LambdaHook
from engine.hooks.profiling import Profile
from engine.hooks.progress_bar import ProgressBar
from engine.hooks.recording import SaveCheckpoint, WriteMetrics
from engine.hooks.stopping import EarlyStopping, StopOnNaN, StopOnSignal

__all__ = [
    "DIVERGENCE",
    "INTERRUPTED",
    "EarlyStopping",
    "Hook",
    "HookInfo",
    "LambdaHook",
    "Profile",
    "ProgressBar",
    "SaveCheckpoint",
    "StopOnNaN",
    "StopOnSignal",
    "WriteMetrics",
]
