"""History: what a run of `fit` leaves behind; Run: what it carries from step to step."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from engine.config import TrainConfig
from engine.function import StepFunction
from engine.hooks import Hook, HookInfo
from engine.memory import MemoryWatch
from engine.state import Logs, Progress, TrainState
from engine.timing import HOOKS, METRICS, Timing, current


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
      traces: Of each of these graphs, `function` and `cause`; see `engine.traces.explain`.
      stop_reason: What a hook gave as its reason to stop early; None if the run went to its end.
      timing: Where the wall time went; see `engine.timing.Timing`.
      memory: What the host's memory did; see `engine.memory.MemoryWatch`.
    """

    history: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    epoch: list[int] = dataclasses.field(default_factory=list)
    epoch_steps: list[int] = dataclasses.field(default_factory=list)
    num_steps: int = 0
    train_secs: float = 0.0
    num_traces: int = 0
    traces: list[dict[str, str]] = dataclasses.field(default_factory=list)
    stop_reason: str | None = None
    timing: dict[str, Any] = dataclasses.field(default_factory=dict)
    memory: dict[str, Any] = dataclasses.field(default_factory=dict)

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
        self.timing = Timing()
        self.memory = MemoryWatch()
        self.step_logs: Logs | None = None
        self._hooks = hooks
        self._functions: list[tuple[StepFunction, int, int]] = []

    def watch(self, function: StepFunction) -> None:
        """Counts the function's traces from now on."""
        self._functions.append((function, function.num_traces, len(function.traces)))

    def call(self, moment: str) -> None:
        """Calls a method of each hook, in their order."""
        with current(self.timing):
            for hook in self._hooks:
                self._call_hook(hook, moment)

    def end(self) -> None:
        """Calls `on_train_end` of each hook, and completes the history."""
        self.history.stop_reason = self.info.stop_reason
        # Each hook closes what it opened, even if the one before it fails.
        with current(self.timing), contextlib.ExitStack() as stack:
            stack.callback(self._complete_history)
            for hook in reversed(self._hooks):
                stack.callback(self._call_hook, hook, "on_train_end")

    def _call_hook(self, hook: Hook, moment: str) -> None:
        method = getattr(hook, moment)
        if getattr(method, "__func__", None) is getattr(Hook, moment):
            return  # does nothing
        with self.timing.part(HOOKS + type(hook).__name__):
            method(self.info)

    def _complete_history(self) -> None:
        history = self.history
        history.num_traces = sum(f.num_traces - before for f, before, _ in self._functions)
        history.traces = [
            dataclasses.asdict(trace)
            for function, _, num_before in self._functions
            for trace in function.traces[num_before:]
        ]
        self.timing.stop()
        history.timing = self.timing.to_dict(history.num_steps)
        history.memory = self.memory.to_dict()

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
        with self.timing.part(METRICS):
            results = self.state.metrics_result()
            return to_host({name: results.get(name, value) for name, value in step_logs.items()})

    def fetch(self, step_logs: Logs) -> Logs:
        """Returns the logs of a step as they are, on the host."""
        self.timing.wait_for_device(step_logs)
        with self.timing.part(METRICS):
            return to_host(step_logs)

    def reset_metrics(self) -> None:
        """Resets the metrics of the state."""
        with self.timing.part(METRICS):
            self.state.reset_metrics()

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
