"""Session: one call of `fit` or `evaluate`, its hooks, its logs and its history.

In the way of a batch: around it. `loop` tells the session what has happened; the session tells the
hooks, brings the logs to the host, one execution late, and keeps the history.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from .agreement import check_agreement
from .arguments import describe
from .building import as_compiled
from .config import TrainConfig
from .history import History
from .hooks.base import Hook, HookInfo
from .memory import MemoryWatch
from .planner import Execution
from .protocols import Logs
from .skip_watch import skip_watches
from .state import TrainState
from .step_function import StepFunction
from .timing import HOOKS, METRICS, Timing, current
from .workers.consensus import Consensus

# Moments that come right after others, where all workers know of the stops that were requested.
_WITHOUT_EXCHANGE = ("on_save_point", "on_predict_batch_begin")
_FIX_OF_HOOKS = (
    "functions go into engine.LambdaHook(on_epoch_end=function), Keras's callbacks into "
    "engine.KerasCallbacks([...])"
)


class Session:
    """One call of `fit` or `evaluate`.

    Raises:
      ConfigError: If the config does not agree with the state or the process.
      ValueError: If a hook is not a `Hook`.
    """

    def __init__(
        self, state: TrainState, config: TrainConfig, hooks: Sequence[Hook] | None
    ) -> None:
        check_agreement(config, state)
        self.config = config = as_compiled(config, state.model)
        hooks = [*check_hooks(hooks), *skip_watches(state, config)]
        self.state = state
        self.info = HookInfo(state, state.progress, steps_per_execution=config.steps_per_execution)
        self.history = History()
        self.consensus = Consensus(state.peers, self.info)
        self.timing = Timing()
        self.memory = MemoryWatch()
        self.step_logs: Logs | None = None
        self.is_training = False
        self.hooks = hooks
        self.needs_exact_logs = any(hook.needs_exact_logs for hook in hooks)
        self.pending: tuple[Logs, int] | None = None
        self.owes_validation = False
        self.excluded: set[int] = set()  # steps of the run whose batches are not trained on
        self.num_cut = 0  # steps of an execution that come when the run goes on
        self.is_over = False
        self.skips_steps = False  # of the epoch that a hook had ended when the run was saved
        self.keep_parts: Callable[[], None] = lambda: None  # for a run that goes on
        self._functions: list[tuple[StepFunction, int]] = []

    def watch(self, function: StepFunction) -> None:
        """Counts traces from now on; of a function that is watched already, they are counted."""
        if all(function is not other for other, _ in self._functions):
            self._functions.append((function, len(function.traces)))

    def call(self, moment: str) -> None:
        """Calls a method of each hook, in their order."""
        with current(self.timing):
            for hook in self.hooks:
                self._call_hook(hook, moment)
        self._drop_media()
        if moment not in _WITHOUT_EXCHANGE:
            self.consensus.reach(self.timing)

    def stops_at_once(self) -> bool:
        """Returns whether an execution is cut short here, on all workers."""
        self.consensus.reach(self.timing)
        return self.info.stops_now

    def save_point(self, *, is_last: bool = False) -> None:
        """Tells the hooks that the run can be saved."""
        self.info.is_last_save_point = is_last
        self.state.resumption.is_save_point = True
        try:
            self.call("on_save_point")
        finally:
            self.state.resumption.is_save_point = False

    def has_epochs_left(self) -> bool:
        """Returns whether another epoch is trained."""
        progress = self.state.progress
        is_over = self.is_over or self.info.stops_now
        return not is_over and progress.num_epochs_completed < progress.num_epochs

    def count(self, execution: Execution) -> None:
        """Counts the steps of an execution, and sets the logs that hooks see."""
        progress = self.state.progress
        progress.step += execution.num_steps
        progress.num_steps_completed += execution.num_steps
        self.history.num_steps += execution.num_steps
        self.info.execution_steps = execution.num_steps
        self.num_cut = execution.num_cut
        if execution.num_cut or execution.is_left_out:
            return  # Hooks do not see it. What was cut goes on when the run is resumed.
        if self.needs_exact_logs:
            self.set_logs(
                self.fetch(execution.logs), progress.num_steps_completed, execution.num_steps
            )
        elif self.pending is not None:
            # One execution late: these values are computed, and nothing waits for the device.
            self.set_logs(self.fetch(self.pending[0]), self.pending[1], execution.num_steps)
        self.pending = (execution.logs, progress.num_steps_completed)
        self.step_logs = execution.logs
        self.memory.sample(self.history.num_steps)

    def stops_training(self) -> bool:
        """Returns whether the epoch ends after this execution."""
        return self.info.stop_reason is not None or self.info.rollback is not None

    def _drop_media(self) -> None:
        lost = [media for media in self.info.media if not media.is_written]
        self.info.media = []
        if lost:
            warnings.warn(
                f"info.add_{lost[0].kind}({lost[0].name!r}): no hook later in the list writes it. "
                "Append engine.WriteMetrics(writer) to hooks, whose writer can, such as "
                "gradloop.engine.storage.tensorboard.TensorBoardWriter(directory).",
                stacklevel=2,
            )

    @contextlib.contextmanager
    def noting_failure(self) -> Iterator[None]:
        """Tells hooks that the call failed, which may serve in another one by then."""
        try:
            yield
        except BaseException:
            self.info.has_failed = True
            raise

    def end(self) -> None:
        """Calls `on_train_end` of each hook, and completes the history."""
        self.history.stop_reason = self.info.stop_reason
        self.history.stop_kind = self.info.stop_kind
        self.history.stop_signal = self.info.stop_signal
        # Each hook closes what it opened, even if the one before it fails.
        with current(self.timing), contextlib.ExitStack() as stack:
            stack.callback(self._complete_history)
            for hook in reversed(sorted(self.hooks, key=saves)):
                stack.callback(self._call_hook, hook, "on_train_end")
            stack.callback(self.keep_parts)

    def _call_hook(self, hook: Hook, moment: str) -> None:
        if hook.overrides(moment):
            with self.timing.part(HOOKS + type(hook).__name__):
                getattr(hook, moment)(self.info)

    def _complete_history(self) -> None:
        history = self.history
        traces = [trace for f, num_before in self._functions for trace in f.traces[num_before:]]
        history.traces = [trace.to_dict() for trace in traces]
        history.num_traces = len(traces)
        self.timing.stop()
        history.timing = self.timing.to_dict(history.num_steps)
        history.memory = self.memory.to_dict()

    def stops_evaluation(self) -> bool:
        """Returns whether an evaluation is cut short.

        As in fit, a stop that was requested in training does not cut its validation short.
        """
        is_asked = self.info.ends_evaluation or self.info.stops_now
        return is_asked or (not self.is_training and self.info.stop_reason is not None)

    def set_logs(self, logs: Logs, step: int, execution_steps: int = 0) -> None:
        """Sets the logs that hooks see, and the step that they belong to."""
        self.info.logs, self.info.logs_step = logs, step
        self.info.execution_steps = execution_steps

    def results(self, step_logs: Logs | None, function: StepFunction) -> Logs:
        """Returns the logs at the end of an epoch: of metrics the results, of others as they are.

        Args:
          step_logs: What the last execution logged; None: a run that is resumed at the end of an
            epoch has done no step yet.
          function: What logged it.
        """
        with self.timing.part(METRICS):
            if step_logs is None:
                return to_host(self.state.metrics_result() | self.state.metrics.mean_results())
            results = function.results()
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
        self.call("on_epoch_end")
        rate = self.state.learning_rate()
        # Hooks may have added to the logs.
        self.history.add_epoch(progress, self.info.logs, None if rate is None else float(rate))
        self.pending = None
        self.is_over = self.info.stop_reason is not None


def saves(hook: Hook) -> bool:
    """Returns whether a hook may save the run."""
    return hook.overrides("on_save_point")


def check_hooks(hooks: Any) -> Sequence[Hook]:
    """Returns the hooks, none for None; raises ValueError unless each of a list is a `Hook`."""
    if hooks is None:
        return ()
    if not isinstance(hooks, list | tuple):
        fix = "put it in a list, hooks=[...]"
        if not isinstance(hooks, Hook):
            fix = f"pass instances, hooks=[engine.ProgressBar()]; {_FIX_OF_HOOKS}"
        raise ValueError(f"hooks must be a list of hooks, not {describe(hooks)}: {fix}.")
    for hook in hooks:
        if isinstance(hook, type) and issubclass(hook, Hook):
            raise ValueError(f"hooks has {describe(hook)}: create one, {hook.__name__}(...).")
        if not isinstance(hook, Hook):
            raise ValueError(
                f"{describe(hook)} is no hook: pass instances of engine.Hook; {_FIX_OF_HOOKS}."
            )
    return hooks


def to_host(logs: Logs) -> dict[str, Any]:
    """Returns floats, and arrays where a result is no scalar, sorted by name as in Keras."""
    # A float, such as one that a checkpoint has kept, has more digits than the tensor of it.
    tensors = [v if isinstance(v, float) else keras.ops.convert_to_tensor(v) for v in logs.values()]
    values = dict(zip(logs, map(np.asarray, tensors), strict=True))
    return {name: float(v) if v.ndim == 0 else v for name, v in sorted(values.items())}
