"""The interface between the loop and its hooks."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.state import Progress, TrainState

DIVERGENCE = "divergence"
INTERRUPTED = "interrupted"
HOOK_METHODS = (
    "on_train_begin",
    "on_epoch_begin",
    "on_execution_end",
    "on_epoch_end",
    "on_eval_begin",
    "on_eval_end",
    "on_train_end",
)


@dataclasses.dataclass
class HookInfo:
    """What every hook method gets. The loop owns it and fills it; hooks read it.

    Attributes:
      state: What is trained.
      progress: `state.progress`.
      logs: Metric name to number, or to an array for a metric whose result is one. During an epoch
        they lag one execution behind, so that the host never waits for the device, and may be
        empty; at the end of an epoch they are exact.
      logs_step: `num_steps_completed` at the moment that the logs belong to.
      execution_steps: Steps in the execution that has just ended; 0 elsewhere.
      has_validation: Whether `val_` keys will come; None if nobody knows.
      stop_reason: Why the run was asked to stop; None while it was not.
      stops_now: Whether it ends without the validation and the end of the current epoch.
      has_failed: Whether an exception ended it, so that the weights may be ahead of the progress.
    """

    state: TrainState
    progress: Progress
    logs: dict[str, float] = dataclasses.field(default_factory=dict)
    logs_step: int = 0
    execution_steps: int = 0
    has_validation: bool | None = None
    stop_reason: str | None = None
    stops_now: bool = False
    has_failed: bool = False

    def request_stop(self, reason: str, *, immediately: bool = False) -> None:
        """Asks the loop to end after this execution, with the validation and end of this epoch.

        So does fit's `stop_training`. With `immediately`, both are left out: what was interrupted
        can be resumed, and an epoch that was not finished is not in the history.

        The first reason stands, but a divergence outranks the others: a run that diverged has
        failed, whatever else was noticed at the same time.
        """
        if self.stop_reason is None or (reason.startswith(DIVERGENCE) and not self.has_diverged):
            self.stop_reason = reason
        self.stops_now = self.stops_now or immediately

    @property
    def has_diverged(self) -> bool:
        """Whether a hook gave a reason that begins with `DIVERGENCE`."""
        return self.stop_reason is not None and self.stop_reason.startswith(DIVERGENCE)


class Hook:
    """Does nothing at any moment; override the methods that you need.

    Context: cross-replica, on the host, outside compiled functions. A hook may also have:

    - an attribute `every_steps`: if it is not None, an execution ends at each multiple of it;
    - a method `max_steps(num_steps_completed)`: the most steps that the next execution of training
      may do, or None;
    - a method `around_execution(num_steps_completed)`: a context manager in which the next
      execution of training is called.
    """

    def on_train_begin(self, info: HookInfo) -> None:
        """Called once, before the first epoch."""

    def on_epoch_begin(self, info: HookInfo) -> None:
        """Called before the first step of an epoch."""

    def on_execution_end(self, info: HookInfo) -> None:
        """Called after each execution of training steps."""

    def on_epoch_end(self, info: HookInfo) -> None:
        """Called after an epoch and its validation, with fit's logs."""

    def on_eval_begin(self, info: HookInfo) -> None:
        """Called before an evaluation."""

    def on_eval_end(self, info: HookInfo) -> None:
        """Called after an evaluation, with its logs."""

    def on_train_end(self, info: HookInfo) -> None:
        """Called once at the end, also after an exception or Ctrl-C."""


class LambdaHook(Hook):
    """Calls the functions that it was given."""

    def __init__(self, **functions: Callable[[HookInfo], object]) -> None:
        """Takes one function a moment.

        Args:
          **functions: Method name of `Hook` to a function that takes a `HookInfo`.

        Raises:
          ValueError: If a name is not one of Hook's methods, or a value cannot be called.
        """
        for name, function in functions.items():
            if name not in HOOK_METHODS:
                nearest = difflib.get_close_matches(name, HOOK_METHODS, n=1)
                hint = f"; did you mean {nearest[0]}?" if nearest else "."
                raise ValueError(
                    f"unknown hook method {name!r}: legal are {', '.join(HOOK_METHODS)}{hint}"
                )
            if not callable(function):
                raise ValueError(f"{name} must be a function of one argument, not {function!r}.")
            setattr(self, name, function)


def check_period(name: str, value: int | None, *, minimum: int = 1) -> None:
    """Raises ValueError unless `value` is None or an integer of at least `minimum`."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name} must be an integer of {minimum} or more, not {value!r}.")
