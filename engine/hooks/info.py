"""What the loop tells its hooks, and what they ask of it."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..history import Progress, StopKind

if TYPE_CHECKING:
    from ..state import TrainState


def _rank(kind: StopKind, immediately: bool) -> int:
    """Returns which stop counts where there are several: the higher one, else the first."""
    if kind is StopKind.DIVERGED:
        return 2
    return 1 if immediately and kind is not StopKind.REQUESTED else 0


class StopRequest(NamedTuple):
    """What `HookInfo.request_stop` was asked, on this worker or another one.

    Attributes:
      reason: For people.
      kind: For code.
      immediately: Whether the rest of the epoch is left out.
      signal: Number of the signal that asked for it; None: none did.
    """

    reason: str
    kind: StopKind = StopKind.REQUESTED
    immediately: bool = False
    signal: int | None = None

    def to_message(self, max_reason: int) -> list[Any]:
        """Returns it as JSON can hold it, with the beginning of a long reason."""
        return [self.reason[:max_reason], self.kind.value, self.immediately, self.signal]

    @classmethod
    def of_message(cls, message: Sequence[Any]) -> StopRequest:
        """Returns what `to_message` was called on."""
        reason, kind, immediately, signal = message
        return cls(reason, StopKind(kind), immediately, signal)


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
class Rollback:
    """Back to an earlier state of the run; see `HookInfo.request_rollback`.

    Attributes:
      restore: Puts back a checkpoint.
      excluded_steps: Steps of the run, counted from 1, whose batches are taken and not trained on.
    """

    restore: Callable[[], object]
    excluded_steps: Sequence[int]


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
      num_steps: Of the current evaluation, or of `predict`; None if its data has no known length.
      eval_step: Steps completed within the current evaluation.
      predict_step: Index of the batch in `predict`.
      outputs: Of the model for it, in `on_predict_batch_end`.
      eval_name: Of the validation data that are being evaluated, such as "val"; "" in `evaluate`.
      steps_per_execution: Of the config; None: the engine chooses.
      has_validation: Whether `val_` keys will come; None if that is unknown.
      stop_reason: Why a hook requested a stop, in words; None while none did.
      stop_kind: The same for code that acts on it.
      ends_after_epoch: Why a hook ends the run after this epoch, also if it is resumed first.
      ends_evaluation: Whether a hook has asked for the end of the evaluation that is going on.
      stops_now: Whether the run ends without the validation and the end of the current epoch.
      stop_signal: Number of the signal that ends the run, on whichever worker it came; None: none.
      defers_stops: Whether requests of stops wait for `apply`: with several workers, until all know
        of them.
      rollback: What a hook has asked to go back to.
      is_last_save_point: Whether no step follows this `on_save_point`.
      has_failed: Whether an exception ended it, so that the weights may be ahead of the progress.
      media: What hooks have added at this moment.
    """

    state: TrainState
    progress: Progress
    logs: dict[str, float] = dataclasses.field(default_factory=dict)
    logs_step: int = 0
    execution_steps: int = 0
    num_steps: int | None = None
    eval_step: int = 0
    eval_name: str = ""
    predict_step: int = 0
    outputs: Any = None
    steps_per_execution: int | None = None
    has_validation: bool | None = None
    stop_reason: str | None = None
    stop_kind: StopKind | None = None
    ends_after_epoch: str | None = None
    ends_evaluation: bool = False
    stops_now: bool = False
    stop_signal: int | None = None
    defers_stops: bool = False
    rollback: Rollback | None = None
    is_last_save_point: bool = False
    has_failed: bool = False
    media: list[Media] = dataclasses.field(default_factory=list)
    _requests: collections.deque[StopRequest] = dataclasses.field(default_factory=collections.deque)

    def request_stop(
        self,
        reason: str,
        *,
        kind: StopKind = StopKind.REQUESTED,
        immediately: bool = False,
        signal: int | None = None,
    ) -> None:
        """Asks the loop to end after this execution.

        The current epoch is validated and ends first, as with fit's `stop_training`. With several
        workers, one that asks ends all of them; they know of it at the end of this moment.

        Args:
          reason: For people. The first reason stands, but an end from outside, which leaves work to
            do, outranks what a hook requested, and a divergence outranks both: that run has failed.
          kind: For code: what the run ends as.
          immediately: Leave out the validation and the end of the epoch. The epoch is then not in
            the history, and a run that was interrupted can be resumed within it.
          signal: Number of the signal that asks for it.
        """
        request = StopRequest(reason, kind, immediately, signal)
        if self.defers_stops:
            self._requests.append(request)
        else:
            self.apply(request)

    def take_requests(self) -> Iterator[StopRequest]:
        """Yields the requests that wait, each once."""
        while self._requests:  # to which signals and threads may add at any time
            yield self._requests.popleft()

    def apply(self, request: StopRequest) -> None:
        """Makes a request effective."""
        reason, kind, immediately, signal = request
        if self.stop_kind is None or _rank(kind, immediately) > _rank(self.stop_kind, False):
            self.stop_reason, self.stop_kind = reason, kind
        if kind is StopKind.REQUESTED and not immediately:
            self.ends_after_epoch = self.ends_after_epoch or reason
        self.stops_now = self.stops_now or immediately
        self.stop_signal = self.stop_signal or signal

    def request_rollback(
        self, restore: Callable[[], object], *, excluded_steps: Sequence[int]
    ) -> None:
        """Asks the loop to go back to a checkpoint after this execution, and to go on from there.

        Context: `on_execution_end`. The dataset must have `seek(epoch, step)`.

        Args:
          restore: Restores it into the state, as `engine.restore_checkpoint` does.
          excluded_steps: Steps of the run, counted from 1, whose batches are left out from then on.
        """
        self.rollback = Rollback(restore, excluded_steps)

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
