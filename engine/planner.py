"""Planner: how many steps the next execution takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from .config import TrainConfig
from .hooks.base import Hook
from .state import TrainState

# An execution of a tenth of a second costs the host next to nothing, and the bar still moves.
TARGET_EXECUTION_SECS = 0.1
# Measured times mislead while caches warm up: the number of steps grows by this factor at most.
MAX_GROWTH = 8


class Planner:
    """Decides how many steps the next execution does.

    Args:
      config: Read: `steps_per_execution`, `validate_every_steps`.
      hooks: Limit the next execution by `Hook.max_steps`, and surround it.
      evaluates: Whether the executions are of an evaluation, which other methods of hooks limit.
      state: Tells whether its step may run in a loop at all; None: it may.
    """

    def __init__(
        self,
        config: TrainConfig,
        hooks: Sequence[Hook] = (),
        state: TrainState | None = None,
        *,
        evaluates: bool = False,
    ) -> None:
        self._state = state
        self._fixed = config.steps_per_execution
        limit, around = "max_steps", "around_execution"
        if evaluates:
            limit, around = "max_eval_steps", "around_eval_execution"
        periodic = [h for h in hooks if h.every_steps and not evaluates]
        limiting = [h for h in hooks if h in periodic or h.overrides(limit)]
        self._limits: list[Callable[[int], int | None]] = [getattr(h, limit) for h in limiting]
        if config.validate_every_steps and not evaluates:
            period = config.validate_every_steps
            self._limits.append(lambda num_steps_completed: period - num_steps_completed % period)
        self._around = [getattr(h, around) for h in hooks if h.overrides(around)]
        self._size = 1
        self._started_at: float | None = None

    def next_size(self, num_left: int | None, num_steps_completed: int) -> int:
        """Returns the steps of the next execution, at most `num_left` if that is known."""
        limits = [n for limit in self._limits if (n := limit(num_steps_completed))]
        limits += [] if num_left is None else [num_left]
        limits += [1] if self._state is not None and not self._state.may_loop else []
        return min([self._fixed or self._size, *limits])

    def around_execution(self, num_steps_completed: int) -> contextlib.ExitStack:
        """Returns the context in which hooks want the next execution to run."""
        with contextlib.ExitStack() as stack:
            for around in self._around:
                stack.enter_context(around(num_steps_completed))
            return stack.pop_all()

    def measure(self, num_steps: int) -> None:
        """Takes the time since the last call as that of the last `num_steps` steps."""
        now = time.perf_counter()
        if self._started_at is not None:
            secs_per_step = max(now - self._started_at, 1e-9) / num_steps
            size = int(TARGET_EXECUTION_SECS / secs_per_step)
            self._size = max(1, min(size, max(num_steps, self._size) * MAX_GROWTH))
        self._started_at = now  # the first execution, which traces, is not measured

    def pause(self) -> None:
        """Leaves out of the measure what happens until the next call of `measure`."""
        self._started_at = None
