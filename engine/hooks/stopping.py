"""Hooks that end a run before its last epoch: EarlyStopping, StopOnNaN and StopOnSignal."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from ..history import StopKind
from ..variables import assign_local_values, local_values
from .base import Hook, HookInfo, check_period

if TYPE_CHECKING:
    from ..state import TrainState

_MODES = ("auto", "min", "max")


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
      restore_best_weights: Whether to restore the weights of the best epoch at the end.
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
        if mode not in _MODES:
            raise ValueError(f"mode must be one of {', '.join(_MODES)}, not {mode!r}.")
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
        if self.monitor.startswith("val_") and info.has_validation is False:
            raise ValueError(
                f"EarlyStopping monitors {self.monitor!r}, but there is no validation data: "
                f"pass some, or monitor {self.monitor.removeprefix('val_')!r}."
            )

    def on_epoch_end(self, info: HookInfo) -> None:
        """Compares, remembers, and stops the run when patience is exhausted.

        Raises:
          ValueError: If the logs have no such key, or "auto" cannot tell the better direction.
        """
        epoch = info.progress.epoch
        current = self._current(info.logs)
        if current is None or epoch < self.start_from_epoch:
            return
        if self._direction is None:
            self._direction = self._find_direction(info.state)
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
        """Restores the best weights."""
        if self._best_weights is not None:
            for variable, values in zip(_weights(info.state), self._best_weights, strict=True):
                assign_local_values(variable, values)

    def _current(self, logs: dict[str, float]) -> float | None:
        if self.monitor in logs:
            return logs[self.monitor]
        has_validated = any(key.startswith("val_") for key in logs)
        # With a validation_freq above 1, most epochs have no val_ keys at all.
        if self.monitor.startswith("val_") and not has_validated:
            return None
        raise ValueError(
            f"EarlyStopping monitors {self.monitor!r}, but the logs have {', '.join(logs)}."
        )

    def _find_direction(self, state: TrainState) -> str:
        if self.mode != "auto":
            return self.mode
        name = self.monitor.removeprefix("val_")
        for metric in _flatten(getattr(state.model, "metrics", [])):
            # The attribute in which Keras's own callback reads it; there is no public one.
            if metric.name == name and name != "loss" and hasattr(metric, "_direction"):
                return "max" if metric._direction == "up" else "min"
        if name.endswith("loss"):
            return "min"
        raise ValueError(
            f"EarlyStopping cannot tell whether {self.monitor!r} is better high or low: "
            "pass mode='max' or mode='min'."
        )

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


class StopOnNaN(Hook):
    """Ends the run when a training loss is NaN or infinite.

    The kind is `StopKind.DIVERGED`, which tells callers that the run failed. Logs lag one
    execution behind, so the run ends one execution late.

    Example:
      >>> state.model.set_weights([w + np.nan for w in state.model.get_weights()])
      >>> engine.fit(state, train_ds, config, hooks=[engine.StopOnNaN()]).stop_kind
      <StopKind.DIVERGED: 'diverged'>
    """

    def on_execution_end(self, info: HookInfo) -> None:
        """Checks the training losses."""
        self._check(info)

    def on_epoch_end(self, info: HookInfo) -> None:
        """Checks the training losses."""
        self._check(info)

    def _check(self, info: HookInfo) -> None:
        for name, value in info.logs.items():
            is_loss = name.endswith("loss") and not name.startswith("val_")
            if is_loss and not np.all(np.isfinite(value)):
                info.request_stop(
                    f"divergence: {name} is {value} at step {info.logs_step}",
                    kind=StopKind.DIVERGED,
                )
                return


class StopOnSignal(Hook):
    """Ends the run after the current execution on Ctrl-C (SIGINT) or SIGTERM, so that it is saved.

    The kind is `StopKind.INTERRUPTED`. A second signal is not caught: it ends the process at once.
    Context: the main thread, the only one that may handle signals, between `on_train_begin` and
    `on_train_end`.

    Example:
      >>> hooks = [engine.StopOnSignal(), engine.SaveCheckpoint(tmp_path)]
      >>> history = engine.fit(state, train_ds, config, hooks=hooks)
    """

    def __init__(self) -> None:
        self._previous: dict[int, Any] = {}

    def on_train_begin(self, info: HookInfo) -> None:
        """Starts to catch the signals."""

        def request(signal_number: int, frame: FrameType | None) -> None:
            info.request_stop("interrupted", kind=StopKind.INTERRUPTED, immediately=True)
            self._restore()

        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, request)

    def on_train_end(self, info: HookInfo) -> None:
        """Restores the earlier handlers."""
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            # None: the handler was not set from Python and cannot be restored.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()


def _weights(state: TrainState) -> list[keras.Variable]:
    # As in Keras, what `get_weights` returns: no states of seed generators, no optimizer.
    models = [state.model, *(e for e in state.extras.values() if isinstance(e, keras.Model))]
    return [weight for model in models for weight in model.weights]


def _flatten(metrics: Iterable[Any]) -> Iterable[Any]:
    for metric in metrics:
        yield metric
        yield from _flatten(getattr(metric, "metrics", []))
