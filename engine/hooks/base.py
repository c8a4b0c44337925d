"""The interface between the loop and its hooks."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from gradloop.usage import did_you_mean

from ..history import Progress, StopKind

if TYPE_CHECKING:
    from ..state import TrainState

HOOK_METHODS = (
    "on_train_begin",
    "on_epoch_begin",
    "on_execution_end",
    "on_epoch_end",
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


@dataclasses.dataclass
class Media:
    """What a hook shows beside numbers; see `HookInfo.add_image`.

    Attributes:
      kind: "image", "histogram" or "text".
      name: Where a writer puts it.
      value: Array of `[height, width, channels]` or a batch of these, array of numbers, or text.
      is_written: Whether a writer took it.
    """

    kind: Literal["image", "histogram", "text"]
    name: str
    value: Any
    is_written: bool = False


@dataclasses.dataclass
class HookInfo:
    """What every hook method gets. The loop owns it and fills it in; hooks read it.

    Attributes:
      state: What is trained.
      progress: `state.progress`.
      logs: Metric name to number, or to an array for a metric whose result is one. During an epoch
        they lag one execution behind, so that the host never waits for the device, and may be
        empty; at the end of an epoch they are exact.
      logs_step: `num_steps_completed` at the moment that the logs belong to.
      execution_steps: Steps of the execution that has just ended; 0 elsewhere.
      eval_step: Steps completed within the current evaluation.
      predict_step: Index of the batch in `predict`.
      outputs: Of the model for it, in `on_predict_batch_end`.
      eval_name: Of the validation data that are being evaluated, such as "val"; "" in `evaluate`.
      steps_per_execution: Of the config; None: the engine chooses.
      has_validation: Whether `val_` keys will come; None if that is unknown.
      stop_reason: Why a hook requested a stop, in words; None while none did.
      stop_kind: The same for code that acts on it.
      stops_now: Whether the run ends without the validation and the end of the current epoch.
      has_failed: Whether an exception ended it, so that the weights may be ahead of the progress.
      media: What hooks have added at this moment.
    """

    state: TrainState
    progress: Progress
    logs: dict[str, float] = dataclasses.field(default_factory=dict)
    logs_step: int = 0
    execution_steps: int = 0
    eval_step: int = 0
    eval_name: str = ""
    predict_step: int = 0
    outputs: Any = None
    steps_per_execution: int | None = None
    has_validation: bool | None = None
    stop_reason: str | None = None
    stop_kind: StopKind | None = None
    stops_now: bool = False
    has_failed: bool = False
    media: list[Media] = dataclasses.field(default_factory=list)

    def request_stop(
        self, reason: str, *, kind: StopKind = StopKind.REQUESTED, immediately: bool = False
    ) -> None:
        """Asks the loop to end after this execution.

        The current epoch is validated and ends first, as with fit's `stop_training`.

        Args:
          reason: For people. The first reason stands, but a divergence outranks the others: a run
            that diverged has failed, whatever else was noticed at the same time.
          kind: For code: what the run ends as.
          immediately: Leave out the validation and the end of the epoch. The epoch is then not in
            the history, and a run that was interrupted can be resumed within it.
        """
        diverges = kind is StopKind.DIVERGED and self.stop_kind is not StopKind.DIVERGED
        if self.stop_kind is None or diverges:
            self.stop_reason, self.stop_kind = reason, kind
        self.stops_now = self.stops_now or immediately

    def add(self, name: str, value: Any) -> None:
        """Adds a value to the logs of the epoch, and so to the history.

        Context: `on_epoch_end`. Hooks later in the list, such as `WriteMetrics`, see it.

        Raises:
          ValueError: If there is a value of that name already.
        """
        if name in self.logs:
            raise ValueError(f"the logs have {name!r} already: take another name.")
        self.logs[name] = value

    def add_image(self, name: str, image: Any) -> None:
        """Shows an image: `WriteMetrics` hooks later in the list write it, to TensorBoard.

        Args:
          name: As TensorBoard lists it.
          image: Array of shape `[height, width, channels]`, or a batch of these; uint8, or float of
            0 to 1.
        """
        self.media.append(Media("image", name, image))

    def add_histogram(self, name: str, values: Any) -> None:
        """Shows the distribution of an array of any shape, likewise."""
        self.media.append(Media("histogram", name, values))

    def add_text(self, name: str, text: str) -> None:
        """Shows a text (Markdown), likewise."""
        self.media.append(Media("text", name, text))

    @property
    def has_diverged(self) -> bool:
        """Whether a hook stopped the run because it diverged."""
        return self.stop_kind is StopKind.DIVERGED


class Hook:
    """Does nothing at any moment; override the methods that you need.

    Context: cross-replica, on the host, outside compiled functions. Hooks observe. They have three
    powers over the loop: `HookInfo.request_stop`, `max_steps` and `around_execution`.

    Attributes:
      every_steps: If it is set, executions end at each multiple of it; see `max_steps`.
      needs_exact_logs: Whether `info.logs` in `on_execution_end` are those of the execution that
        has just ended, for which the host then waits.

    Example:
      >>> class PrintLoss(engine.Hook):
      ...     def on_epoch_end(self, info):
      ...         print(sorted(info.logs))
      >>> history = engine.fit(state, train_ds, config, hooks=[PrintLoss()])
      ['loss']
    """

    every_steps: int | None = None
    needs_exact_logs: bool = False

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
        """Called once at the end, also after an exception or Ctrl-C."""

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
