"""Progress: how far a run has come. History: what it has logged."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any


@dataclasses.dataclass
class Progress:
    """How far a run has come. The loop adds, hooks read, the checkpoint saves.

    Attributes:
      epoch: Index of the current epoch, from 0.
      step: Steps completed within the current epoch.
      num_steps_completed: Steps completed over the whole run.
      num_epochs_completed: Epochs completed over the whole run.
      num_epochs: Index of the last epoch of this run, plus one.
      steps_per_epoch: Steps of an epoch; None while it is unknown.
    """

    epoch: int = 0
    step: int = 0
    num_steps_completed: int = 0
    num_epochs_completed: int = 0
    num_epochs: int = 0
    steps_per_epoch: int | None = None

    def begin(self, initial_epoch: int, num_epochs: int, *, resume: bool) -> None:
        """Moves to where a run starts: `initial_epoch`, or where a checkpoint stands."""
        if not resume:
            self.epoch = self.num_epochs_completed = initial_epoch
            self.step = 0
        self.num_epochs = num_epochs

    @property
    def step_of_next_epoch(self) -> int:
        """Steps that are done of the epoch that is not completed: 0 between two epochs."""
        return self.step if self.epoch == self.num_epochs_completed else 0


class StopKind(enum.Enum):
    """Why a run ended before its last epoch."""

    REQUESTED = "requested"  # by a hook that had seen enough, as fit's `stop_training`
    INTERRUPTED = "interrupted"  # from outside; the run can be resumed
    TIME_LIMIT = "time limit"  # set by the person; the run can be resumed
    STEP_LIMIT = "step limit"  # likewise
    DIVERGED = "diverged"  # the run has failed


@dataclasses.dataclass
class History:
    """What a run of `fit` has logged.

    Attributes:
      history: Keras's keys (`loss`, `accuracy`, `val_loss`, ...), one value an epoch.
      epoch: Index of each epoch.
      epoch_steps: Steps of each epoch, including those from before a resumption.
      learning_rate: The optimizer's at the end of each epoch; empty without an optimizer.
      num_steps: Training steps of this run, including those of an unfinished epoch.
      train_secs: Wall seconds of these steps, tracing included; validation, hooks at the end of
        epochs and what comes before the first step are not.
      num_traces: Graphs traced: 1 for training, and 1 for validation if there was any.
      traces: `function` and `cause` of each of these graphs; see `engine.retracing.explain`.
      stop_reason: Why the run ended early, in words; None if it went to its end.
      stop_kind: The same for callers that act on it.
      stop_signal: Number of the signal that ended it, on whichever worker it came; None: none did.
      timing: Where the wall time went; see `engine.timing.Timing`.
      memory: How the memory of the host grew; see `engine.memory.MemoryWatch`.
    """

    history: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    epoch: list[int] = dataclasses.field(default_factory=list)
    epoch_steps: list[int] = dataclasses.field(default_factory=list)
    learning_rate: list[float] = dataclasses.field(default_factory=list)
    num_steps: int = 0
    train_secs: float = 0.0
    num_traces: int = 0
    traces: list[dict[str, str]] = dataclasses.field(default_factory=list)
    stop_reason: str | None = None
    stop_kind: StopKind | None = None
    stop_signal: int | None = None
    timing: dict[str, Any] = dataclasses.field(default_factory=dict)
    memory: dict[str, Any] = dataclasses.field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """Returns what a resumed run continues: what there is of each epoch."""
        return {
            "history": {name: list(values) for name, values in self.history.items()},
            "epoch": list(self.epoch),
            "epoch_steps": list(self.epoch_steps),
            "learning_rate": list(self.learning_rate),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continues what `state` returned."""
        for name, value in state.items():
            setattr(self, name, value)

    def add_epoch(
        self, progress: Progress, logs: dict[str, Any], learning_rate: float | None = None
    ) -> None:
        """Appends the logs of the current epoch."""
        self.learning_rate += [] if learning_rate is None else [learning_rate]
        self.epoch.append(progress.epoch)
        self.epoch_steps.append(progress.step)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)
