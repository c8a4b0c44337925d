"""Planner: how many steps the next execution takes, and what ends it early."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .config import TrainConfig
from .hooks.base import Hook
from .protocols import Logs
from .state import TrainState

# An execution of a tenth of a second costs the host next to nothing, and the bar still moves.
TARGET_EXECUTION_SECS = 0.1
# A call of the device cannot be stopped: a longer execution is several calls. Before the time of a
# step is known, a call has few.
MAX_CALL_SECS = 0.5
FIRST_CALL_STEPS = 8
# Measured times mislead while caches warm up: the number of steps grows by this factor at most.
MAX_GROWTH = 8


class Execution(NamedTuple):
    """What an execution has done.

    Attributes:
      num_steps: Its steps.
      logs: Of the last one.
      num_cut: Its last steps, before which a stop ended it.
      is_left_out: Whether its batch was taken and not trained on.
    """

    num_steps: int
    logs: Logs
    num_cut: int = 0
    is_left_out: bool = False


class Stops(NamedTuple):
    """Whether a run is to end: after the execution, and within it."""

    after_execution: Callable[[], bool]
    at_once: Callable[[], bool]


NEVER = Stops(lambda: False, lambda: False)


class Sizes(NamedTuple):
    """The most steps that an execution, and one of its calls, may have as far as time tells."""

    execution: int = 1
    call: int = FIRST_CALL_STEPS


class Planner:
    """Decides how many steps the next execution does.

    Args:
      config: Read: `steps_per_execution`, `validate_every_steps`.
      hooks: Limit the next execution by `Hook.max_steps`, and surround it.
      evaluates: Whether the executions are of an evaluation, which other methods of hooks limit.
      state: Tells whether its step may run in a loop at all; None: it may.
      function: What runs the steps. Its `sizes` are those to begin with, and follow those here, so
        that its next run need not find them again. None: nothing is kept.

    Attributes:
      follows: Whether what is measured counts only once it is taken; see `take`.
    """

    def __init__(
        self,
        config: TrainConfig,
        hooks: Sequence[Hook] = (),
        state: TrainState | None = None,
        *,
        evaluates: bool = False,
        function: Any = None,
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
        self._num_cut = 0
        # What this process has measured, and what holds: with several workers, the chief's.
        self._function = function
        self._measured = self._sizes = Sizes(*(function.sizes if function is not None else ()))
        self.follows = False
        self._started_at: float | None = None

    def finish_execution(self, num_cut: int) -> None:
        """Lets the next execution do the steps that were cut off the one before; 0: none were."""
        self._num_cut = num_cut

    def next_size(self, num_left: int | None, num_steps_completed: int) -> int:
        """Returns the steps of the next execution, at most `num_left` if that is known."""
        limits = [n for limit in self._limits if (n := limit(num_steps_completed))]
        limits += [] if num_left is None else [num_left]
        size = self._sizes.execution if self._fixed is None else self._num_cut or self._fixed
        self._num_cut = 0
        return min([size, *limits])

    def next_call(self, num_left: int) -> int:
        """Returns how many of the `num_left` steps of an execution the next call does."""
        # Only the call: executions end where they would, also in a run that is resumed.
        is_single = self._state is not None and not self._state.may_loop
        return min(num_left, 1 if is_single else self._sizes.call)

    def measure_call(self, num_steps: int, secs: float) -> None:
        """Takes the time of one call that did not trace."""
        size = int(MAX_CALL_SECS * num_steps / max(secs, 1e-9))
        size = max(1, min(size, max(num_steps, self._sizes.call) * MAX_GROWTH))
        self._keep(self._measured._replace(call=size))

    def around_execution(self, num_steps_completed: int) -> contextlib.ExitStack:
        """Returns the context in which hooks want the next execution to run."""
        with contextlib.ExitStack() as stack:
            for around in self._around:
                stack.enter_context(around(num_steps_completed))
            return stack.pop_all()

    def measure(self, num_steps: int) -> None:
        """Takes the time since the last call as that of the last `num_steps` steps."""
        now = time.perf_counter()
        secs = None if self._started_at is None else max(now - self._started_at, 1e-9)
        # One that the end of the data or a hook cut short says little: its fixed costs weigh more.
        is_cut = num_steps < self._sizes.execution
        if secs is not None and not (is_cut and secs < TARGET_EXECUTION_SECS):
            size = int(TARGET_EXECUTION_SECS * num_steps / secs)
            size = max(1, min(size, max(num_steps, self._sizes.execution) * MAX_GROWTH))
            self._keep(self._measured._replace(execution=size))
        self._started_at = now  # the first execution, which traces, is not measured

    def _keep(self, measured: Sizes) -> None:
        self._measured = measured
        if not self.follows:
            self.take(measured)

    @property
    def measured(self) -> Sizes:
        """What this process would do next; see `take`."""
        return self._measured

    def take(self, sizes: Sequence[int]) -> None:
        """Does what one of several workers has measured, so that all do the same."""
        self._sizes = Sizes(*sizes)
        if self._function is not None:
            self._function.sizes = self._sizes

    def pause(self) -> None:
        """Leaves out of the measure what happens until the next call of `measure`."""
        self._started_at = None
