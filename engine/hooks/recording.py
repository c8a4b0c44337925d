"""Hooks that put something on disk: SaveCheckpoint and WriteMetrics."""

from __future__ import annotations

import os
from typing import Any

from gradloop.files import make_directory

from ..storage import checkpoint
from ..storage.writers import Kind, Writer, timed
from ..timing import CHECKPOINTS, part
from .base import Hook, HookInfo, check_period


class SaveCheckpoint(Hook):
    """Saves weights, optimizer and progress at the end, and every N epochs or steps.

    A run that diverged or failed is not saved at its end: the newest checkpoint is from before. For
    that, `StopOnNaN` must come before this hook in the list.

    Args:
      directory: Where the files `ckpt-<num_steps_completed>.npz` go. It is created at once, so that
        a bad one fails before training starts.
      every_epochs: Period in epochs of the run; None: not at the end of epochs.
      every_steps: Period in steps of the run: the loop ends an execution at each multiple of it;
        None: not within epochs.
      max_to_keep: How many of the newest files are kept.

    Raises:
      ValueError: If a number is not an integer above 0, or the directory cannot be written.

    Example:
      >>> hook = engine.SaveCheckpoint(tmp_path, every_steps=2, max_to_keep=1)
      >>> history = engine.fit(state, train_ds, config, hooks=[hook])
      >>> [path.name for path in tmp_path.iterdir()]
      ['ckpt-4.npz']
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        every_epochs: int | None = 1,
        every_steps: int | None = None,
        max_to_keep: int = 3,
    ) -> None:
        check_period("every_epochs", every_epochs)
        check_period("every_steps", every_steps)
        check_period("max_to_keep", max_to_keep)
        self.directory = make_directory(directory)
        self.every_epochs = every_epochs
        self.every_steps = every_steps
        self.max_to_keep = max_to_keep
        self._start_steps = self._last_steps = 0

    def on_train_begin(self, info: HookInfo) -> None:
        """Starts to count steps where the run stands.

        Raises:
          ValueError: If the directory holds checkpoints of a run that went further: they would
            stay, and count as the newest.
        """
        self._start_steps = self._last_steps = info.progress.num_steps_completed
        checkpoint.check_none_beyond(self.directory, self._start_steps)

    def on_execution_end(self, info: HookInfo) -> None:
        """Saves if a multiple of `every_steps` was reached."""
        num_steps = info.progress.num_steps_completed
        if self.every_steps is not None:
            if num_steps // self.every_steps > self._last_steps // self.every_steps:
                self._save(info)
            self._last_steps = num_steps

    def on_epoch_end(self, info: HookInfo) -> None:
        """Saves after every `every_epochs` epochs."""
        if self.every_epochs is not None and (info.progress.epoch + 1) % self.every_epochs == 0:
            self._save(info)

    def on_train_end(self, info: HookInfo) -> None:
        """Saves the end, also of a run that a hook or a signal stopped; not one that failed."""
        if not info.has_failed and info.progress.num_steps_completed > self._start_steps:
            self._save(info)

    def _save(self, info: HookInfo) -> None:
        if not info.has_diverged:
            with part(CHECKPOINTS):
                checkpoint.save(self.directory, info.state)
                checkpoint.retain(self.directory, self.max_to_keep)


class WriteMetrics(Hook):
    """Hands logs to a writer: training logs during epochs, and fit's logs at the end of each.

    It also writes the learning rate, and what hooks before it in the list add by `info.add_image`
    and its like, where the writer can. The writer is flushed after each epoch, and closed at the
    end.

    Args:
      writer: Where the logs go.
      every_steps: Period in steps of the records of training logs: the loop ends an execution at
        each multiple of it; None: one record an execution, about ten a second. A record has the
        step that its logs belong to.

    Raises:
      ValueError: If `every_steps` is not an integer above 0, or the writer is not a `Writer`.

    Example:
      >>> from gradloop.engine.storage.writers import CSVWriter
      >>> hook = engine.WriteMetrics(CSVWriter(tmp_path / "metrics.csv"))
      >>> history = engine.fit(state, train_ds, config, hooks=[hook])
      >>> (tmp_path / "metrics.csv").read_text().splitlines()[0]
      'step,epoch,kind,loss,learning_rate'
    """

    def __init__(self, writer: Writer, *, every_steps: int | None = None) -> None:
        check_period("every_steps", every_steps)
        if not isinstance(writer, Writer):
            raise ValueError(f"writer must be an engine.storage.writers.Writer, not {writer!r}.")
        self.writer = writer
        self.every_steps = every_steps
        self._last_step = 0
        self._rates: dict[int, Any] = {}  # by step: read with the logs, one execution late

    def on_train_begin(self, info: HookInfo) -> None:
        """Starts to count steps where the run stands."""
        self._last_step = info.progress.num_steps_completed
        self._write_media(info)

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
        if learning_rate is not None:
            logs.setdefault("learning_rate", float(learning_rate))
        with timed(self.writer):
            self.writer.write(info.logs_step, logs, epoch=info.progress.epoch, kind=kind)

    def _write_media(self, info: HookInfo) -> None:
        for media in info.media:
            media.is_written |= self.writer.write_media(info.progress.num_steps_completed, media)
