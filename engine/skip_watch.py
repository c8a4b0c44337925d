"""SkipWatch: ends a run whose loss scale does nothing but skip."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from .config import TrainConfig
from .history import StopKind
from .hooks.base import Hook, HookInfo
from .loss_scaling import LossScaling
from .state import TrainState

_NUM_NAMED = 3  # Variables that a message names before it only counts.


class SkipWatch(Hook):
    """Ends the run as diverged when a loss scale has skipped too many steps in a row.

    A scale that begins too high is halved in as many skipped steps until the gradients are finite.
    A gradient that is not finite at any scale, of a NaN in the input or in a layer, skips each
    step, and with finite losses nothing else shows it. A session adds this itself.

    Args:
      max_skipped: Steps in a row beyond those in which the initial scale is halved down to 1.
    """

    def __init__(self, max_skipped: int) -> None:
        self._max_skipped = max_skipped
        self._late: list[_Reading] = []

    def on_train_begin(self, info: HookInfo) -> None:
        """Forgets an earlier run."""
        self._late = []

    def on_execution_end(self, info: HookInfo) -> None:
        """Looks at the execution before this one, so that nothing waits for the device."""
        self._check(info)
        scalings = info.state.step_variables.loss_scalings
        self._late = [_Reading(one, one.read(), one.scale()) for one in scalings.values()]

    def on_epoch_end(self, info: HookInfo) -> None:
        """Looks at the last execution."""
        self._check(info)

    def _check(self, info: HookInfo) -> None:
        readings, self._late = self._late, []
        for reading in [] if info.has_diverged else readings:
            found = reading.scaling.parse(reading.values)
            if found.num_in_a_row >= self._max_skipped + reading.scaling.num_halvings:
                reason = (
                    f"divergence: {found.num_in_a_row} steps in a row were skipped, and the loss "
                    f"scale is {float(reading.scale):.3g} by now: the gradients of "
                    f"{_in_words(found.names)} are not finite at any scale. Look for a NaN in the "
                    "data, or for an operation that overflows in float16"
                )
                warnings.warn(reason, stacklevel=2)
                info.request_stop(reason, kind=StopKind.DIVERGED)


class _Reading(NamedTuple):
    """A loss scale at one moment."""

    scaling: LossScaling
    values: Any
    scale: tf.Tensor


def skip_watches(state: TrainState, config: TrainConfig) -> list[Hook]:
    """Returns the hook that a training of this state needs; none if no loss is scaled."""
    kind = keras.optimizers.LossScaleOptimizer
    is_scaled = any(isinstance(one, kind) for one in state.optimizers.values())
    if config.max_skipped_steps is None or not is_scaled:
        return []
    return [SkipWatch(config.max_skipped_steps)]


def _in_words(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return ", ".join(names[:_NUM_NAMED]) + more
