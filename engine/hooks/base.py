"""The interface between the loop and its hooks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from gradloop.usage import did_you_mean

from .info import HookInfo, Media

__all__ = ["HOOK_METHODS", "Hook", "HookInfo", "LambdaHook", "Media", "check_period"]

HOOK_METHODS = (
    "on_train_begin",
    "on_epoch_begin",
    "on_execution_end",
    "on_epoch_end",
    "on_save_point",
    "on_eval_begin",
    "on_eval_execution_end",
    "on_eval_end",
    "on_validation_end",
    "on_predict_begin",
    "on_predict_batch_begin",
    "on_predict_batch_end",
    "on_predict_end",
    "on_train_end",
)


class Hook:
    """Does nothing at any moment; override the methods that you need.

    Context: cross-replica, on the host, outside compiled functions. Hooks observe. They have four
    powers over the loop: `HookInfo.request_stop`, `HookInfo.request_rollback`, `max_steps` and
    `around_execution`.

    Attributes:
      every_steps: If it is set, executions end at each multiple of it; see `max_steps`.
      needs_exact_logs: Whether `info.logs` in `on_execution_end` are those of the execution that
        has just ended, for which the host then waits.
      nonfinite_action: What it does about numbers that are not finite, a word of
        `TrainConfig.on_nonfinite`; None: nothing.

    Example:
      >>> class PrintLoss(engine.Hook):
      ...     def on_epoch_end(self, info):
      ...         print(sorted(info.logs))
      >>> history = engine.fit(state, train_ds, config, hooks=[PrintLoss()])
      ['loss']
    """

    every_steps: int | None = None
    needs_exact_logs: bool = False
    nonfinite_action: str | None = None

    def on_train_begin(self, info: HookInfo) -> None:
        """Called once, before the first epoch."""

    def on_epoch_begin(self, info: HookInfo) -> None:
        """Called before the first step of an epoch."""

    def on_execution_end(self, info: HookInfo) -> None:
        """Called after each execution of training steps."""

    def on_epoch_end(self, info: HookInfo) -> None:
        """Called after an epoch and its validation, with fit's logs."""

    def on_save_point(self, info: HookInfo) -> None:
        """Called where the run can be saved and resumed, when all hooks know what has happened.

        That is after each execution, after each epoch, and once more when training ends, with
        `info.is_last_save_point`: before the average of the weights, or the best weights, replace
        those that the optimizer belongs to. Not at the end of a run that failed.
        """

    def state(self) -> dict[str, Any]:
        """Returns what a resumed run needs of this hook, as a checkpoint saves it.

        A dict of names to numbers, strings, None, NumPy arrays, and lists and dicts of these.
        """
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where a run was saved that is resumed, or rolled back.

        It is called after `on_train_begin`; in a rollback after later steps, which it undoes.

        Args:
          state: What `state` returned, {} too.
        """

    def on_eval_begin(self, info: HookInfo) -> None:
        """Called before an evaluation."""

    def on_eval_execution_end(self, info: HookInfo) -> None:
        """Called after each execution of evaluation steps, with `info.eval_step`."""

    def on_eval_end(self, info: HookInfo) -> None:
        """Called after an evaluation, with its logs."""

    def on_validation_end(self, info: HookInfo) -> None:
        """Called after a validation within an epoch, with its logs by their names in the history.

        Each evaluation of it has called `on_eval_begin` and `on_eval_end` before.
        """

    def on_predict_begin(self, info: HookInfo) -> None:
        """Called before the first batch of `predict`."""

    def on_predict_batch_begin(self, info: HookInfo) -> None:
        """Called before a batch, or `steps_per_execution` of them, with `info.predict_step`."""

    def on_predict_batch_end(self, info: HookInfo) -> None:
        """Called after them, with `info.outputs`, for which the host then waits."""

    def on_predict_end(self, info: HookInfo) -> None:
        """Called after the last batch of `predict`."""

    def on_train_end(self, info: HookInfo) -> None:
        """Called once at the end, also after an exception or Ctrl-C.

        Hooks with an `on_save_point` of their own are called after the others, so that they see the
        final weights.
        """

    def max_steps(self, num_steps_completed: int) -> int | None:
        """Returns the most steps that the next execution of training may do; None: any number.

        By default the steps that are left until the next multiple of `every_steps`.
        """
        if self.every_steps is None:
            return None
        return self.every_steps - num_steps_completed % self.every_steps

    def max_eval_steps(self, step: int) -> int | None:
        """Returns the most steps that the next execution of an evaluation may do; None: any.

        Args:
          step: Steps of the evaluation that are done.
        """
        return None

    def around_eval_execution(self, step: int) -> contextlib.AbstractContextManager[None]:
        """Returns the context in which the next execution of an evaluation is called."""
        return contextlib.nullcontext()

    def around_execution(self, num_steps_completed: int) -> contextlib.AbstractContextManager[None]:
        """Returns the context in which the next execution of training is called.

        It is entered where Keras calls `on_train_batch_begin`: with `steps_per_execution=1`, before
        each batch.
        """
        return contextlib.nullcontext()

    def overrides(self, method: str) -> bool:
        """Returns whether this hook has its own method of that name, so that it must be called."""
        return getattr(getattr(self, method), "__func__", None) is not getattr(Hook, method)


class LambdaHook(Hook):
    """Calls the functions that it was given.

    Args:
      every_steps: Executions end at each multiple of it, and `on_execution_end` is called there
        alone; None: after each execution.
      **functions: Name of an `on_` method of `Hook` to a function of a `HookInfo`.

    Raises:
      ValueError: If a name is not one of these methods, a value cannot be called, or `every_steps`
        is not an integer above 0.

    Example:
      >>> hook = engine.LambdaHook(on_train_end=lambda info: print("done"))
      >>> history = engine.fit(state, train_ds, config, hooks=[hook])
      done
    """

    def __init__(
        self, *, every_steps: int | None = None, **functions: Callable[[HookInfo], object]
    ) -> None:
        check_period("every_steps", every_steps)
        self.every_steps = every_steps
        for name, function in functions.items():
            if name not in HOOK_METHODS:
                raise ValueError(
                    f"unknown hook method {name!r}: legal are {', '.join(HOOK_METHODS)}."
                    f"{did_you_mean(name, HOOK_METHODS)}"
                )
            if not callable(function):
                raise ValueError(f"{name} must be a function of one argument, not {function!r}.")
            is_periodic = every_steps is not None and name == "on_execution_end"
            setattr(self, name, self._at_multiples(function) if is_periodic else function)

    def _at_multiples(self, function: Callable[[HookInfo], object]) -> Callable[[HookInfo], None]:
        def call(info: HookInfo) -> None:
            if info.progress.num_steps_completed % (self.every_steps or 1) == 0:
                function(info)

        return call


def check_period(name: str, value: int | None, *, minimum: int = 1) -> None:
    """Raises ValueError unless `value` is None or an integer of at least `minimum`."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name} must be an integer of {minimum} or more, not {value!r}.")
