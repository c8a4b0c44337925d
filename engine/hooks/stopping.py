"""EarlyStopping: ends a run that no longer improves."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from ..variables import assign_local_values, flatten_extras, local_values
from .base import Hook, HookInfo, check_period
from .monitored import check_mode, check_validated, find_direction, monitored_value

if TYPE_CHECKING:
    from ..state import TrainState


class EarlyStopping(Hook):
    """Stops when a logged quantity no longer improves; epoch by epoch what Keras's callback does.

    Two things differ from Keras: an unknown `monitor` is an error and not a warning, and the best
    weights are kept for each replica, and for models in the state's extras too.

    Args:
      monitor: Key of the epoch's logs.
      min_delta: Smallest change that counts as an improvement.
      patience: Epochs without improvement before the run stops.
      mode: "min", "max", or "auto": the direction of the metric, "min" for names ending in "loss".
      baseline: Value that an improvement must also beat to reset the patience.
      restore_best_weights: Whether to restore the weights of the best epoch at the end. A run that
        is cut short keeps its own, with which it can be resumed.
      start_from_epoch: First epoch, from 0, that counts.

    Raises:
      ValueError: If an argument is illegal.

    Example:
      >>> hook = engine.EarlyStopping("loss", min_delta=100.0)
      >>> history = engine.fit(state, train_ds, engine.TrainConfig(epochs=5), hooks=[hook])
      >>> history.epoch
      [0, 1]
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        min_delta: float = 0.0,
        patience: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        check_mode(mode)
        check_period("patience", patience, minimum=0)
        check_period("start_from_epoch", start_from_epoch, minimum=0)
        self.monitor = monitor
        self.min_delta = abs(min_delta)
        self.patience = patience
        self.mode = mode
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self._reset()

    def _reset(self) -> None:
        self.wait = 0
        self.stopped_epoch = 0
        self.best_epoch = 0
        self.best: float | None = None
        self._best_weights: list[list[np.ndarray]] | None = None
        self._direction: str | None = None

    def on_train_begin(self, info: HookInfo) -> None:
        """Forgets an earlier run.

        Raises:
          ValueError: If a `val_` key is monitored and there will be no validation.
        """
        self._reset()
        check_validated(type(self).__name__, self.monitor, info.has_validation)

    def state(self) -> dict[str, Any]:
        """Returns what it has seen, with the best weights."""
        return {
            "monitor": self.monitor,
            "wait": self.wait,
            "stopped_epoch": self.stopped_epoch,
            "best_epoch": self.best_epoch,
            "best": self.best,
            "best_weights": self._best_weights,
            "direction": self._direction,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on with the patience that is left; anew if it monitors something else by now."""
        if state["monitor"] != self.monitor:
            warnings.warn(
                f"EarlyStopping monitors {self.monitor!r}, and the run that is resumed monitored "
                f"{state['monitor']!r}: it begins anew.",
                stacklevel=2,
            )
            return
        self.wait = state["wait"]
        self.stopped_epoch = state["stopped_epoch"]
        self.best_epoch = state["best_epoch"]
        self.best = state["best"]
        self._best_weights = state["best_weights"] if self.restore_best_weights else None
        self._direction = state["direction"]

    def on_epoch_end(self, info: HookInfo) -> None:
        """Compares, remembers, and stops the run when patience is exhausted.

        Raises:
          ValueError: If the logs have no such key, or "auto" cannot tell the better direction.
        """
        epoch = info.progress.epoch
        current = monitored_value(type(self).__name__, self.monitor, info.logs)
        if current is None or epoch < self.start_from_epoch:
            return
        if self._direction is None:
            who = type(self).__name__
            self._direction = find_direction(who, self.monitor, self.mode, info.state)
        if self.restore_best_weights and self._best_weights is None:
            self._remember(info.state, epoch)
        self.wait += 1
        if self._is_improvement(current, self.best):
            self.best = current
            self.best_epoch = epoch
            if self.restore_best_weights:
                self._remember(info.state, epoch)
            if self.baseline is None or self._is_improvement(current, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience:
            self.stopped_epoch = epoch
            info.request_stop(
                f"early stopping: {self.monitor} has not improved on {self.best:g} "
                f"(epoch {self.best_epoch + 1}) for {self.wait} epochs"
            )

    def on_train_end(self, info: HookInfo) -> None:
        """Restores the best weights, unless the run was cut short."""
        if self._best_weights is not None and not info.stops_now:
            for variable, values in zip(_weights(info.state), self._best_weights, strict=True):
                assign_local_values(variable, values)

    def _is_improvement(self, value: float, reference: float | None) -> bool:
        if reference is None:
            return True
        # Keras compares in float32, so that differences below its precision do not count.
        if self._direction == "max":
            return bool(np.float32(value - self.min_delta) > np.float32(reference))
        return bool(np.float32(value + self.min_delta) < np.float32(reference))

    def _remember(self, state: TrainState, epoch: int) -> None:
        self.best_epoch = epoch
        self._best_weights = [local_values(v) for v in _weights(state)]


def _weights(state: TrainState) -> list[keras.Variable]:
    # As in Keras, what `get_weights` returns: no states of seed generators, no optimizer.
    extras = flatten_extras(state.extras).values()
    models = [state.model, *(e for e in extras if isinstance(e, keras.Model))]
    return [weight for model in models for weight in model.weights]
