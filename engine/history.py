"""History: what a run of `fit` leaves behind; Run: what it carries from step to step."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from engine.config import TrainConfig
from engine.hooks import Hook, HookInfo
from engine.state import Logs, Progress, TrainState


@dataclasses.dataclass
class History:
    """What a run of `fit` leaves behind.

    Attributes:
      history: Keras's keys (`loss`, `accuracy`, `val_loss`, ...), one value an epoch.
      epoch: Index of each epoch.
      epoch_steps: Steps of each epoch, those from before a resumption included.
      num_steps: Training steps of this run, those of an epoch that was not finished included.
      train_secs: Wall seconds of these steps; validation, hooks at the end of epochs and what
        comes before the first step excluded, the tracing of the graph included.
      num_traces: Graphs traced: 1 for training, and 1 for validation if there was any.
      stop_reason: What a hook gave as its reason to stop early; None if the run went to its end.
    """

    history: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    epoch: list[int] = dataclasses.field(default_factory=list)
    epoch_steps: list[int] = dataclasses.field(default_factory=list)
    num_steps: int = 0
    train_secs: float = 0.0
    num_traces: int = 0
    stop_reason: str | None = None

    def add_epoch(self, progress: Progress, logs: Logs) -> None:
        """Appends the epoch in which the run stands."""
        self.epoch.append(progress.epoch)
        self.epoch_steps.append(progress.step)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)


class Run:
    """One call of `fit` or `evaluate`: the hooks, what they are told, and the history."""

    def __init__(self, state: TrainState, hooks: Sequence[Hook]) -> None:
        self.state = state
        self.info = HookInfo(state, state.progress)
        self.history = History()
        self.step_logs: Logs | None = None
        self._hooks = hooks

    def call(self, moment: str) -> None:
        """Calls a method of each hook, in their order."""
        for hook in self._hooks:
            getattr(hook, moment)(self.info)

    def end(self) -> None:
        """Calls `on_train_end` of each hook."""
        # Each hook closes what it opened, even if the one before it fails.
        with contextlib.ExitStack() as stack:
            for hook in reversed(self._hooks):
                stack.callback(hook.on_train_end, self.info)

    def begin(self, config: TrainConfig, *, resume: bool) -> None:
        """Sets the progress to where the run starts."""
        progress = self.state.progress
        if not resume:
            progress.epoch = progress.num_epochs_completed = config.initial_epoch
            progress.step = 0
        elif progress.epoch < progress.num_epochs_completed:  # saved at the end of an epoch
            progress.epoch, progress.step = progress.num_epochs_completed, 0
        progress.num_epochs = config.epochs

    def set_logs(self, logs: Logs, step: int, execution_steps: int = 0) -> None:
        """Sets what hooks are told, and the step that it belongs to."""
        self.info.logs, self.info.logs_step = logs, step
        self.info.execution_steps = execution_steps

    def epoch_logs(self) -> Logs:
        """Returns the metrics' results and what else the last step returned."""
        # A run that is resumed at the end of an epoch has done no step yet.
        return self.results(
            self.state.metrics_result() if self.step_logs is None else self.step_logs
        )

    def results(self, step_logs: Logs) -> Logs:
        """Returns the logs of a step, with the metrics' results under the metrics' names."""
        results = self.state.metrics_result()
        return to_host({name: results.get(name, value) for name, value in step_logs.items()})

    def end_epoch(self, logs: Logs) -> None:
        """Counts the epoch, keeps its logs and tells the hooks."""
        progress = self.state.progress
        progress.num_epochs_completed = progress.epoch + 1
        logs = dict(sorted(logs.items()))  # the order of Keras's history
        self.set_logs(logs, progress.num_steps_completed)
        self.history.add_epoch(progress, logs)
        self.call("on_epoch_end")


def to_host(logs: Logs) -> Logs:
    """Returns floats, and arrays where a result is no scalar, sorted by name as in Keras."""
    values = {name: np.asarray(keras.ops.convert_to_tensor(v)) for name, v in logs.items()}
    return {name: float(v) if v.ndim == 0 else v for name, v in sorted(values.items())}
