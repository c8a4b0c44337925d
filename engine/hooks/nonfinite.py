"""Hooks for numbers that are not finite: StopOnNaN and OnNonfinite."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..history import Progress, StopKind
from ..nonfinite import LeftOut
from ..storage import checkpoint
from ..storage.checkpoint_folder import CheckpointFolder, num_steps_of
from ..storage.format import CheckpointFile
from .base import Hook, HookInfo, check_period

_ACTIONS = ("stop", "skip", "rollback")
_NUM_NAMED = 3  # Variables that a message names before it only counts.


class StopOnNaN(Hook):
    """Ends the run when a training loss is NaN or infinite.

    The kind is `StopKind.DIVERGED`, which tells callers that the run failed. Logs lag one
    execution behind, so the run ends one execution late; `OnNonfinite` acts before weights change.

    Example:
      >>> state.model.set_weights([w + np.nan for w in state.model.get_weights()])
      >>> engine.fit(state, train_ds, config, hooks=[engine.StopOnNaN()]).stop_kind
      <StopKind.DIVERGED: 'diverged'>
    """

    nonfinite_action = "watch"

    def on_execution_end(self, info: HookInfo) -> None:
        """Checks the training losses."""
        self._check(info)

    def on_epoch_end(self, info: HookInfo) -> None:
        """Checks the training losses."""
        self._check(info)

    def _check(self, info: HookInfo) -> None:
        for name, value in info.logs.items():
            is_loss = name.endswith("loss") and not name.startswith("val_")
            if is_loss and not np.all(np.isfinite(value)):
                info.request_stop(
                    f"divergence: {name} is {value} at step {info.logs_step}",
                    kind=StopKind.DIVERGED,
                )
                return


class OnNonfinite(Hook):
    """Tells of steps with a gradient or loss that is not finite, and ends or rolls back the run.

    Such a step changes nothing: neither weights, optimizer slots and iterations, sums of gradients,
    metrics, statistics of layers, nor seeds. For that, `TrainConfig.on_nonfinite` must be the same
    word. A step of several updates leaves out those from the first one that is not finite. Under a
    `LossScaleOptimizer` (float16), only the loss counts, before it is scaled: a scaled gradient
    that overflows is how the optimizer finds its scale, and it leaves out that update itself.

    With "stop" and "rollback", later steps of the execution change nothing either, and the host
    waits for the device at the end of each execution. Put this hook before `SaveCheckpoint`.

    Args:
      action: "stop" ends the run as `StopKind.DIVERGED`, with the weights from before the step.
        "skip" goes on without the step, and tells of the first one and of their number. "rollback"
        goes back to the newest good checkpoint from before the step, and leaves out its batch.
      directory: Of `SaveCheckpoint`, for "rollback". The start of the run is saved there, unless it
        has the checkpoint from which the run goes on.
      max_rollbacks: How many there are in a run; one more ends it as `StopKind.DIVERGED`.
      global_batch_size: Examples of a batch, to name those of the step; None: they are not named.
      line: Called with each line.

    Raises:
      ValueError: If an argument is illegal.

    Example:
      >>> config = engine.TrainConfig(on_nonfinite="stop")
      >>> state.model.set_weights([w + np.nan for w in state.model.get_weights()])
      >>> hooks = [engine.OnNonfinite("stop")]
      >>> engine.fit(state, train_ds, config, hooks=hooks).stop_reason
      'divergence: the loss and ... not finite at step 1 (epoch 1, batch 1); ... of step 0'
    """

    def __init__(
        self,
        action: str,
        *,
        directory: str | os.PathLike[str] | None = None,
        max_rollbacks: int = 3,
        global_batch_size: int | None = None,
        line: Callable[[str], object] = print,
    ) -> None:
        if action not in _ACTIONS:
            raise ValueError(f"action must be one of {', '.join(_ACTIONS)}, not {action!r}.")
        if action == "rollback" and directory is None:
            raise ValueError("action='rollback' needs the directory of SaveCheckpoint: pass it.")
        check_period("max_rollbacks", max_rollbacks)
        check_period("global_batch_size", global_batch_size)
        self.nonfinite_action = action
        self.max_rollbacks = max_rollbacks
        self.global_batch_size = global_batch_size
        self._folder = CheckpointFolder(directory or "")
        self._told = self._line = line
        self._has_begun = False
        self._reset()

    def _reset(self) -> None:
        self.num_left_out = self.num_rollbacks = 0
        self._num_before = 0  # of the run until it was resumed
        self._first: str | None = None
        self._late: _Reading | None = None

    def on_train_begin(self, info: HookInfo) -> None:
        """Forgets an earlier run."""
        self._reset()
        self._line = self._told if info.state.writes else (lambda text: None)
        if info.state.step_variables.record is not None:
            info.state.step_variables.record.clear()
        self._has_begun = False

    def on_epoch_begin(self, info: HookInfo) -> None:
        """Makes sure that there is a checkpoint to go back to, once the run stands where it was."""
        if self._has_begun or self.nonfinite_action != "rollback":
            return
        self._has_begun = True
        path = self._newest_until(info, info.progress.num_steps_completed)
        is_there = info.state.writes and path is not None and _is_of(path, info.progress)
        if not info.state.peers.of_chief(is_there):
            with contextlib.suppress(OSError):  # SaveCheckpoint says what is wrong.
                self._folder.save(info.state)

    def state(self) -> dict[str, Any]:
        """Returns how many steps were left out, and which was the first."""
        self._tell_late()
        if not self.num_left_out and not self.num_rollbacks:
            return {}
        return {
            "num_left_out": self.num_left_out,
            "first": self._first,
            "num_rollbacks": self.num_rollbacks,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on counting. A rollback restores an earlier state: it does not uncount itself."""
        self._num_before = self.num_left_out = state.get("num_left_out", 0)
        self._first = state.get("first")
        self.num_rollbacks = max(self.num_rollbacks, state.get("num_rollbacks", 0))

    def on_execution_end(self, info: HookInfo) -> None:
        """Acts on a step that was left out."""
        if self.nonfinite_action != "skip":
            self._act(info)
            return
        # One execution late, for which nothing waits for the device.
        self._tell_late()
        self._late = _Reading.of(info)

    def on_epoch_end(self, info: HookInfo) -> None:
        """Tells of the last execution."""
        self._tell_late()

    def on_save_point(self, info: HookInfo) -> None:
        """Acts on such a step of an execution that was cut short, too."""
        if info.is_last_save_point:
            self.on_execution_end(info)

    def on_train_end(self, info: HookInfo) -> None:
        """Tells how many steps were skipped."""
        self._tell_late()
        if self.num_left_out:
            self._line(f"{self.num_left_out:,} skipped in all; the first: {self._first}")

    def _tell_late(self) -> None:
        reading, self._late = self._late, None
        if reading is None:
            return
        found = reading.parse()
        if found.num_left_out and self._first is None:
            self._first = self._describe(found, reading)
            self._line(f"skipped: {self._first}")
        self.num_left_out = self._num_before + found.num_left_out

    def _act(self, info: HookInfo) -> None:
        reading = _Reading.of(info)
        found = reading.parse() if reading is not None else None
        if reading is None or found is None or not found.num_left_out:
            return
        step, text = reading.step_of(found), self._describe(found, reading)
        if self.nonfinite_action == "stop":
            _diverge(info, f"{text}; the weights are those of step {step - 1}")
        elif info.is_last_save_point:
            # The run ends without it: resumed, it comes here again. Nothing is saved until then.
            info.request_rollback(lambda: None, excluded_steps=[step])
        elif self.num_rollbacks == self.max_rollbacks:
            _diverge(info, f"{text}, after {self.num_rollbacks} rollbacks (max_rollbacks)")
        else:
            self._roll_back(info, step, text)

    def _roll_back(self, info: HookInfo, step: int, text: str) -> None:
        path = self._newest_until(info, step - 1)
        if path is None:
            _diverge(info, f"{text}, and {self._folder.directory} has no checkpoint from before it")
            return
        self.num_rollbacks += 1
        self._line(
            f"rollback {self.num_rollbacks} of at most {self.max_rollbacks}: {text}; back to step "
            f"{num_steps_of(path)} ({path}), to go on without that batch"
        )
        info.request_rollback(lambda: checkpoint.restore(path, info.state), excluded_steps=[step])

    def _newest_until(self, info: HookInfo, num_steps: int) -> Path | None:
        """Returns the checkpoint that the chief finds: it may be about to write another one."""
        found: Path | None = None
        if info.state.writes:
            paths = (path for path in self._folder.by_age() if num_steps_of(path) <= num_steps)
            found = next((path for path in paths if self._folder.is_good(path)), None)
        name = info.state.peers.of_chief(None if found is None else found.name)
        return None if name is None else self._folder.directory / name

    def _describe(self, found: LeftOut, reading: _Reading) -> str:
        step = reading.step_of(found)
        batch = reading.batch_of(step)
        where = f"epoch {reading.epoch + 1}, batch {batch}"
        if self.global_batch_size is not None:
            last = batch * self.global_batch_size - 1
            where += f", examples {last + 1 - self.global_batch_size} to {last} of its order"
        return f"{_what(found)} not finite at step {step} ({where})"


class _Reading(NamedTuple):
    """The record and the progress at one moment."""

    values: Any
    parse_values: Callable[[Any], LeftOut]
    epoch: int
    step: int
    num_steps: int

    @classmethod
    def of(cls, info: HookInfo) -> _Reading | None:
        """Returns what there is to read now; None before a step was traced."""
        record, progress = info.state.step_variables.record, info.progress
        if record is None:
            return None
        return cls(
            record.read(), record.parse, progress.epoch, progress.step, progress.num_steps_completed
        )

    def parse(self) -> LeftOut:
        """Returns what the record says. Waits for the device, if it is not at that moment yet."""
        return self.parse_values(self.values)

    def step_of(self, found: LeftOut) -> int:
        """Returns the first step that was left out, over the run, from 1."""
        return self.num_steps - (found.num_steps - found.first_step)

    def batch_of(self, step: int) -> int:
        """Returns the index of its batch in the epoch, from 1."""
        return self.step - (self.num_steps - step)


def _is_of(path: Path, progress: Progress) -> bool:
    """Returns whether a checkpoint is of this place in a run, and not of a state without a run."""
    with CheckpointFile(path) as file:
        saved, parts = file.progress, file.read_tree()
    return "history" in parts and (saved.num_steps_completed, saved.num_epochs_completed) == (
        progress.num_steps_completed,
        progress.num_epochs_completed,
    )


def _what(found: LeftOut) -> str:
    names = ", ".join(found.names[:_NUM_NAMED])
    num_more = len(found.names) - _NUM_NAMED
    names += f" and {num_more} more" if num_more > 0 else ""
    parts = ["the loss"] if found.loss else []
    parts += [f"the gradients of {names}"] if names else []
    is_one = parts == ["the loss"]
    return f"{' and '.join(parts)} {'is' if is_one else 'are'}"


def _diverge(info: HookInfo, reason: str) -> None:
    info.request_stop(f"divergence: {reason}", kind=StopKind.DIVERGED, immediately=True)
