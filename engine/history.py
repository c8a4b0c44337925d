"""History: what a run of `fit` leaves behind."""

from __future__ import annotations

import dataclasses
from typing import Any

from engine.state import Logs, Progress


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
      stop_reason: What a hook gave as its reason to stop early; None if the run went to its end.
    """

    history: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    epoch: list[int] = dataclasses.field(default_factory=list)
    epoch_steps: list[int] = dataclasses.field(default_factory=list)
    num_steps: int = 0
    train_secs: float = 0.0
    num_traces: int = 0
    stop_reason: str | None = None

    def add_epoch(self, progress: Progress, logs: Logs) -> None:
        """Appends the epoch in which the run stands."""
        self.epoch.append(progress.epoch)
        self.epoch_steps.append(progress.step)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)
