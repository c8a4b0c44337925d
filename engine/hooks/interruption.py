"""Hooks that end a run so that it can be resumed: on a signal, after a time, after some steps."""

from __future__ import annotations

import contextlib
import functools
import threading
import time

from gradloop import signals

from ..history import StopKind
from .base import Hook, HookInfo, check_period


class StopOnSignal(Hook):
    """Ends a run, or an evaluation, soon after Ctrl-C (SIGINT) or SIGTERM, so that it is saved.

    The execution is cut short, and the kind is `StopKind.INTERRUPTED`. A second signal ends the
    process at once, with exit code 128 plus its number; the newest checkpoint stays. Signals that
    come within a quarter of a second are one: some launchers send each twice.

    Context: the main thread, the only one that may handle signals. They are caught from
    `on_train_begin` to `on_train_end`, and in the executions of `evaluate`.

    Example:
      >>> hooks = [engine.StopOnSignal(), engine.SaveCheckpoint(tmp_path)]
      >>> history = engine.fit(state, train_ds, config, hooks=hooks)
    """

    def __init__(self) -> None:
        self._training = contextlib.ExitStack()
        self._evaluated: HookInfo | None = None

    def on_train_begin(self, info: HookInfo) -> None:
        """Starts to catch the signals.

        Raises:
          ValueError: If this is not the main thread.
        """
        self._training.enter_context(signals.listening(functools.partial(_stop, info)))

    def on_train_end(self, info: HookInfo) -> None:
        """Puts back the earlier handlers."""
        self._training.close()

    def on_eval_begin(self, info: HookInfo) -> None:
        """Notes which evaluation is to be stopped."""
        self._evaluated = info

    # Not from `on_eval_begin` to `on_eval_end`: an error in between would leave them caught.
    def around_eval_execution(self, step: int) -> contextlib.AbstractContextManager[None]:
        """Returns the context that catches the signals in an execution of `evaluate`."""
        assert self._evaluated is not None, "the evaluation has begun"
        return signals.listening(functools.partial(_stop, self._evaluated))


def _stop(info: HookInfo, number: int) -> None:
    info.request_stop("interrupted", kind=StopKind.INTERRUPTED, immediately=True, signal=number)


class StopAfterTime(Hook):
    """Ends a run after a time, in mid-execution if need be, so that it is saved and can be resumed.

    The kind is `StopKind.TIME_LIMIT`.

    Args:
      secs: The limit, in seconds.
      started_at: The `time.monotonic()` from which it counts; None: `on_train_begin`.

    Raises:
      ValueError: If `secs` is not a number above 0.

    Example:
      >>> hooks = [engine.StopAfterTime(secs=3600), engine.SaveCheckpoint(tmp_path)]
      >>> history = engine.fit(state, train_ds, config, hooks=hooks)
    """

    def __init__(self, secs: float, *, started_at: float | None = None) -> None:
        if isinstance(secs, bool) or not isinstance(secs, int | float) or not secs > 0:
            raise ValueError(f"secs must be a number above 0, not {secs!r}.")
        self.secs = secs
        self.started_at = started_at
        self._timer: threading.Timer | None = None

    def on_train_begin(self, info: HookInfo) -> None:
        """Starts the clock."""
        now = time.monotonic()
        secs_past = 0.0 if self.started_at is None else now - self.started_at
        self._timer = threading.Timer(max(0.0, self.secs - secs_past), self._stop, [info])
        self._timer.daemon = True
        self._timer.start()

    def on_train_end(self, info: HookInfo) -> None:
        """Stops it."""
        if self._timer is not None:
            self._timer.cancel()

    def _stop(self, info: HookInfo) -> None:
        reason = f"the time limit of {self.secs:g} s"
        info.request_stop(reason, kind=StopKind.TIME_LIMIT, immediately=True)


class StopAfterSteps(Hook):
    """Ends a run after a step, exactly, so that it is saved and can be resumed.

    The kind is `StopKind.STEP_LIMIT`. An epoch that is complete then is validated and ends; the end
    of the last epoch is the end of the run, and no stop.

    Args:
      num_steps: The limit, in steps of the whole run.

    Raises:
      ValueError: If it is not an integer above 0.

    Example:
      >>> hooks = [engine.StopAfterSteps(2), engine.SaveCheckpoint(tmp_path)]
      >>> engine.fit(state, train_ds, config, hooks=hooks).num_steps
      2
    """

    def __init__(self, num_steps: int) -> None:
        check_period("num_steps", num_steps)
        self.num_steps = num_steps

    def max_steps(self, num_steps_completed: int) -> int | None:
        """Returns the steps that are left."""
        return max(1, self.num_steps - num_steps_completed)

    def on_execution_end(self, info: HookInfo) -> None:
        """Stops the run at the limit."""
        progress = info.progress
        if progress.num_steps_completed < self.num_steps:
            return
        ends_epoch = progress.step == progress.steps_per_epoch
        if ends_epoch and progress.epoch + 1 == progress.num_epochs:
            return
        reason = f"the limit of {self.num_steps:,} steps"
        info.request_stop(reason, kind=StopKind.STEP_LIMIT, immediately=not ends_epoch)
