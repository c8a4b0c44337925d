"""SaveCheckpoint: what is saved of a run, and when."""

from __future__ import annotations

import contextlib
import math
import os
import time
import warnings
from collections.abc import Iterator
from typing import Any, Literal, get_args

from gradloop import signals
from gradloop.files import DirectoryError, make_directory

from ..history import StopKind
from ..storage.checkpoint_folder import FINAL, CheckpointFolder, has_values, num_steps_of
from ..storage.format import CheckpointError
from ..storage.saves import Saves
from ..storage.snapshot import NonFiniteError, capture, saved_weights
from ..timing import CHECKPOINTS, part
from .base import Hook, HookInfo, check_period
from .monitored import check_mode, check_validated, find_direction, monitored_value

OnError = Literal["continue", "stop"]


class SaveCheckpoint(Hook):
    """Saves the run, so that it can go on: at the end, and every N epochs, steps or seconds.

    A run that diverged or failed is not saved at its end, and weights or optimizer slots that are
    not finite are never saved: the newest checkpoint is from before. If the run ends with other
    weights than those that its optimizer belongs to (the moving average, the best ones), these are
    written to `final.npz`, which `engine.final_checkpoint` finds. With several workers, the chief
    writes; the others have the hook too, because what each of them keeps is saved with the rest.

    Args:
      directory: Where the files `ckpt-<num_steps_completed>.npz` go. It is created at once, so that
        a bad one fails before training starts.
      every_epochs: Period in epochs of the run; None: not at the end of epochs.
      every_steps: Period in steps of the run: the loop ends an execution at each multiple of it;
        None: not within epochs.
      every_secs: Period in seconds of wall time; None: no such period.
      max_to_keep: How many of the newest intact files are kept.
      keep_best: Key of the epoch's logs: the epoch with its best value is kept in `best.npz`.
      mode: Of `keep_best`: "min", "max", or "auto", as in `EarlyStopping`.
      asynchronous: Whether the values are only copied while training waits, and a thread writes
        them. Takes the memory of one copy. A file becomes the newest when it is on the disk.
      on_error: What a file that cannot be written does: "continue" warns, and the next save tries
        again; "stop" ends the run with an OSError.
      grace_secs: Time from a signal to the end of the process. A save that would not fit, as far as
        an earlier one tells, is not begun. None: no limit.

    Raises:
      ValueError: If an argument is illegal, or the directory cannot be written.

    Example:
      >>> hook = engine.SaveCheckpoint(tmp_path, every_steps=2, max_to_keep=1)
      >>> history = engine.fit(state, train_ds, config, hooks=[hook])
      >>> [path.name for path in tmp_path.iterdir()]
      ['ckpt-4.npz']
    """

    def __init__(  # noqa: PLR0913 - settings, all but one by keyword
        self,
        directory: str | os.PathLike[str],
        *,
        every_epochs: int | None = 1,
        every_steps: int | None = None,
        every_secs: float | None = None,
        max_to_keep: int = 3,
        keep_best: str | None = None,
        mode: str = "auto",
        asynchronous: bool = False,
        on_error: OnError = "continue",
        grace_secs: float | None = None,
    ) -> None:
        check_period("every_epochs", every_epochs)
        check_period("every_steps", every_steps)
        check_period("max_to_keep", max_to_keep)
        _check_secs("every_secs", every_secs)
        _check_secs("grace_secs", grace_secs)
        check_mode(mode)
        if on_error not in get_args(OnError):
            raise ValueError(f"on_error must be 'continue' or 'stop', not {on_error!r}.")
        self.directory = make_directory(directory)
        self.every_epochs = every_epochs
        self.every_steps = every_steps
        self.every_secs = every_secs
        self.max_to_keep = max_to_keep
        self.keep_best = keep_best
        self.mode = mode
        self.asynchronous = asynchronous
        self.on_error = on_error
        self.grace_secs = grace_secs
        self._best: dict[str, Any] = {}  # its "value" and "num_steps"
        self._best_before: dict[str, Any] = {}
        self._writes = True
        self._begin((0, 0))

    def _begin(self, position: tuple[int, int]) -> None:
        self._folder = CheckpointFolder(self.directory)
        self._saves = Saves(
            self._folder,
            max_to_keep=self.max_to_keep,
            asynchronous=self.asynchronous,
            is_fatal=self.on_error == "stop",
        )
        self._saved: tuple[int, int] | None = position  # steps and epochs of the last save
        self._seen = position
        self._last_secs = time.monotonic()

    def on_train_begin(self, info: HookInfo) -> None:
        """Starts to count where the run stands.

        Raises:
          ValueError: If the directory holds checkpoints of a run that went further: they would
            stay, and count as the newest. If a `val_` key is monitored and nothing is validated.
        """
        if self.keep_best is not None:
            check_validated(type(self).__name__, self.keep_best, info.has_validation)
        self._best = self._best_before = {}
        self._begin(_position(info))
        num_steps = info.progress.num_steps_completed
        info.state.peers.on_chief(lambda: self._folder.check_none_beyond(num_steps))
        self._writes = info.state.writes

    def state(self) -> dict[str, Any]:
        """Returns the best value, and the step that had it."""
        return {} if self.keep_best is None else {"monitor": self.keep_best, "best": self._best}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on with the best value, if the same key is monitored."""
        if state and state["monitor"] == self.keep_best:
            self._best = self._best_before = state["best"]
            if self._best and self._writes:
                with self._tolerated():
                    self._folder.mend_best(self._best["num_steps"])

    def on_epoch_begin(self, info: HookInfo) -> None:
        """Notices that the run has gone back to an earlier step."""
        if _position(info) < self._seen:
            self._seen, self._saved = _position(info), None

    def on_save_point(self, info: HookInfo) -> None:
        """Saves what is due, the best epoch, and the end.

        Raises:
          OSError: If a file cannot be written, and `on_error` is "stop".
          ValueError: If the logs do not have the key of `keep_best`, or "auto" cannot tell which
            direction is better.
        """
        now, before = _position(info), self._seen
        self._seen = now
        ends_epoch = now[1] > before[1]
        # Which epoch was the best is known once the save of an earlier one has not failed.
        with part(CHECKPOINTS):
            self._settle(wait=ends_epoch and self.keep_best is not None)
        if info.has_diverged or info.rollback is not None:
            return
        is_moment = info.is_last_save_point or ends_epoch or self._is_due(now, before)
        if self.every_secs is None and not is_moment:
            return
        is_due = (info.is_last_save_point or self._is_due(now, before)) and now != self._saved
        is_best = ends_epoch and self._is_best(info)
        if info.state.writes and (is_due or is_best) and self._is_too_late(info):
            is_due = is_best = False
        # Clocks, and what could not be written, are the chief's.
        is_due, is_best = info.state.peers.of_chief((is_due, is_best))
        if is_due or is_best:
            self._save(info, is_regular=is_due, is_best=is_best)

    def on_train_end(self, info: HookInfo) -> None:
        """Waits for what is being written, and writes the final weights if they are others."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._saves.close)
            self._settle(wait=True)
            if info.has_failed or info.has_diverged:
                return
            if info.state.peers.of_chief(self._saved == _position(info)):
                with part(CHECKPOINTS), self._tolerated():
                    self._write_final(info)

    @contextlib.contextmanager
    def _tolerated(self) -> Iterator[None]:
        try:
            yield
        except (OSError, DirectoryError, CheckpointError, NonFiniteError) as error:
            if self.on_error == "stop":
                raise
            warnings.warn(f"cannot write in {self.directory}: {error}.", stacklevel=2)

    def _is_due(self, now: tuple[int, int], before: tuple[int, int]) -> bool:
        (steps, epochs), (steps_before, epochs_before) = now, before
        is_over = self.every_secs is not None and (
            time.monotonic() - self._last_secs >= self.every_secs
        )
        return (
            is_over
            or _passes_multiple(self.every_steps, steps_before, steps)
            or _passes_multiple(self.every_epochs, epochs_before, epochs)
        )

    def _is_best(self, info: HookInfo) -> bool:
        if self.keep_best is None:
            return False
        who = type(self).__name__
        value = monitored_value(who, self.keep_best, info.logs)
        if value is None or math.isnan(value):
            return False
        sign = 1 if find_direction(who, self.keep_best, self.mode, info.state) == "max" else -1
        return not self._best or sign * value > sign * self._best["value"]

    def _is_too_late(self, info: HookInfo) -> bool:
        received, needed = signals.received_at(), self._saves.secs
        if self.grace_secs is None or received is None or needed is None:
            return False
        left = self.grace_secs - (time.monotonic() - received)
        if info.stop_kind is not StopKind.INTERRUPTED or needed <= left:
            return False
        warnings.warn(
            f"Step {info.progress.num_steps_completed} is not saved: of grace_secs="
            f"{self.grace_secs:g}, {max(left, 0):.1f} are left, and the last save took "
            f"{needed:.1f}. {self._folder.what_stays()}",
            stacklevel=2,
        )
        return True

    def _save(self, info: HookInfo, *, is_regular: bool, is_best: bool) -> None:
        with part(CHECKPOINTS):
            self._settle(wait=True)
            self._last_secs = time.monotonic()
            if is_regular:
                self._saved = _position(info)
            self._best_before = self._best  # if this save fails
            if is_best and self.keep_best is not None:
                value = monitored_value(type(self).__name__, self.keep_best, info.logs)
                self._best = {"value": value, "num_steps": info.progress.num_steps_completed}
            snapshot = capture(info.state, only_finite=True)
            if info.state.writes:
                self._saves.start(snapshot, is_regular=is_regular, is_best=is_best)
            self._settle(wait=not self.asynchronous)

    def _settle(self, *, wait: bool) -> None:
        if not self._saves.settle(wait=wait):
            self._saved, self._best = None, self._best_before

    def _write_final(self, info: HookInfo) -> None:
        """Writes the weights if they are not those of the newest checkpoint, of this step."""
        snapshot, weights = capture(info.state, only_finite=True), saved_weights(info.state)
        newest = self._folder.newest() if info.state.writes else None
        if newest is None or num_steps_of(newest) != info.progress.num_steps_completed:
            return
        if has_values(newest, weights):
            (self.directory / FINAL).unlink(missing_ok=True)
        else:
            self._folder.write(snapshot, FINAL)


def _position(info: HookInfo) -> tuple[int, int]:
    return info.progress.num_steps_completed, info.progress.num_epochs_completed


def _passes_multiple(period: int | None, before: int, now: int) -> bool:
    return period is not None and now // period > before // period


def _check_secs(name: str, value: float | None) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < value < math.inf):
        raise ValueError(f"{name} must be a number of seconds above 0, not {value!r}.")
