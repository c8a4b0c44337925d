"""WriteMetrics: the hook that hands logs to a writer."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..storage.records import Kind, Writer, timed
from ..storage.retrying import retrying
from .base import Hook, HookInfo, check_period

_ON_ERROR = ("stop", "continue")


class WriteMetrics(Hook):
    """Hands logs to a writer: training logs during epochs, and fit's logs at the end of each.

    It also writes the learning rate, and what hooks before it in the list add by `info.add_image`
    and its like, where the writer can. The writer is flushed after each epoch, and closed at the
    end. A run that is resumed from a checkpoint goes on in the same files: what was written after
    the checkpoint is dropped, so that each record comes once. With several workers, the chief
    writes.

    Args:
      writer: Where the logs go.
      every_steps: Period in steps of the records of training logs: the loop ends an execution at
        each multiple of it; None: one record an execution, about ten a second. A record has the
        step that its logs belong to.
      on_error: What happens if the writer raises OSError (a full disk, a folder that nobody may
        write): "stop" raises it; "continue" warns once, and writes the records later, in their
        order, when that is possible again. At most 10,000 are kept until then, and no media.

    Raises:
      ValueError: If `every_steps` is not an integer above 0, the writer is not a `Writer`, or
        `on_error` is another word.

    Example:
      >>> from gradloop.engine.storage.writers import CSVWriter
      >>> hook = engine.WriteMetrics(CSVWriter(tmp_path / "metrics.csv"))
      >>> history = engine.fit(state, train_ds, config, hooks=[hook])
      >>> (tmp_path / "metrics.csv").read_text().splitlines()[0]
      'step,epoch,kind,loss,learning_rate'
    """

    def __init__(
        self, writer: Writer, *, every_steps: int | None = None, on_error: str = "stop"
    ) -> None:
        check_period("every_steps", every_steps)
        if on_error not in _ON_ERROR:
            raise ValueError(f"on_error must be one of {', '.join(_ON_ERROR)}, not {on_error!r}.")
        if not isinstance(writer, Writer):
            raise ValueError(f"writer must be an engine.storage.writers.Writer, not {writer!r}.")
        self.writer = writer if on_error == "stop" else retrying(writer)
        self.every_steps = every_steps
        self._writes = True
        self._last_step = 0
        self._rates: dict[int, Any] = {}  # by step: read with the logs, one execution late

    def on_train_begin(self, info: HookInfo) -> None:
        """Starts to count steps where the run stands."""
        self._writes = info.state.writes
        self._last_step = info.progress.num_steps_completed
        self._rates.clear()
        self._write_media(info)

    def state(self) -> dict[str, Any]:
        """Returns how much is written, up to which step, and the learning rates of later ones."""
        rates = {
            step: None if r is None else float(np.asarray(r)) for step, r in self._rates.items()
        }
        if not self._writes:
            return {}
        with timed(self.writer):
            writer = self.writer.state()
        return {"writer": writer, "last_step": self._last_step, "rates": rates}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes the files back to what they were, and goes on from there."""
        if not state:  # of a worker that writes nothing
            return
        self._last_step, self._rates = state["last_step"], dict(state["rates"])
        if not self._writes:
            return
        with timed(self.writer):
            self.writer.restore(state["writer"])

    def on_execution_end(self, info: HookInfo) -> None:
        """Writes the logs if they are new and the period is over."""
        now = info.progress.num_steps_completed
        if self._is_due(now):  # Its logs come with the next execution, if not already.
            self._rates[now] = info.state.learning_rate()
        if info.logs and self._is_due(info.logs_step):
            self._last_step = info.logs_step
            self._write(info, "execution", self._rates.pop(info.logs_step, None))
        self._write_media(info)

    def _is_due(self, step: int) -> bool:
        period = self.every_steps or 1
        return step // period > self._last_step // period

    def on_validation_end(self, info: HookInfo) -> None:
        """Writes the logs of a validation within an epoch."""
        self._write(info, "execution")
        self._write_media(info)

    def on_eval_end(self, info: HookInfo) -> None:
        """Writes what hooks have added."""
        self._write_media(info)

    def on_epoch_end(self, info: HookInfo) -> None:
        """Writes the logs of the epoch."""
        # The epoch's record covers its last step: on_execution_end must not write it again.
        self._last_step = max(self._last_step, info.logs_step)
        self._rates.clear()
        self._write(info, "epoch", info.state.learning_rate())
        self._write_media(info)
        with timed(self.writer):
            self.writer.flush()

    def on_train_end(self, info: HookInfo) -> None:
        """Closes the writer."""
        self._write_media(info)
        with timed(self.writer):
            self.writer.close()

    def _write(self, info: HookInfo, kind: Kind, learning_rate: Any = None) -> None:
        logs = dict(info.logs)
        if not self._writes:
            return
        if learning_rate is not None:
            logs.setdefault("learning_rate", float(learning_rate))
        with timed(self.writer):
            self.writer.write(info.logs_step, logs, epoch=info.progress.epoch, kind=kind)

    def _write_media(self, info: HookInfo) -> None:
        for media in info.media:
            media.is_written |= not self._writes or self.writer.write_media(
                info.progress.num_steps_completed, media
            )
