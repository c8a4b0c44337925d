"""ProgressBar: a bar on a terminal, plain lines elsewhere, one line an epoch on both."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np
from tqdm import tqdm

from .bar_text import Pace, bar_format, columns_of, format_logs
from .base import Hook, HookInfo


class ProgressBar(Hook):
    """Shows epoch, steps, speed and logs, and the learning rate once it has changed.

    On a terminal: a bar for the running epoch with as many of these as there is room for, which
    gives way to one line when the epoch ends. Elsewhere (a file, a pipe): plain lines without
    control characters. With several workers, the chief shows them.

    Args:
      stream: Where the bar or the lines go. Default: `sys.stdout` as it is at that moment.
      interval_secs: Minimum time between two plain lines within an epoch.
      line: Called with each whole line, without its newline. Default: writes it to the stream.
      examples_per_step: The global batch size, for the speed in examples; None: the bar
        shows it in steps, and the lines do not.
      unit: What an example is called.

    Raises:
      ValueError: If the interval is negative.

    Example:
      >>> hooks = [engine.ProgressBar()]
      >>> history = engine.fit(state, train_ds, config, hooks=hooks)
      Epoch 1/1 - 4 steps - ... s - loss: ...
    """

    def __init__(
        self,
        *,
        stream: TextIO | None = None,
        interval_secs: float = 10.0,
        line: Callable[[str], None] | None = None,
        examples_per_step: int | None = None,
        unit: str = "images",
    ) -> None:
        if not interval_secs >= 0:
            raise ValueError(f"interval_secs must be 0 or more, not {interval_secs!r}.")
        self._given_stream = stream
        self._interval_secs = interval_secs
        self._given_line = line
        self._examples_per_step = examples_per_step
        self._unit = "steps" if examples_per_step is None else unit
        self._pace = Pace()
        self._rate: Any = None  # the learning rate after the last execution
        self._first_rate: float | None = None
        self._has_rate_changed = False
        self._bar: Any = None
        self._shows = True
        self._epoch_start_secs = 0.0
        self._last_line_secs = 0.0

    def on_train_begin(self, info: HookInfo) -> None:
        """Notes the learning rate."""
        self._rate, self._first_rate = None, _rate_of(info.state.learning_rate())
        self._has_rate_changed = False

    def on_epoch_begin(self, info: HookInfo) -> None:
        """Opens a bar, on a terminal."""
        self._epoch_start_secs = self._last_line_secs = time.monotonic()
        self._pace.begin()
        self._shows = info.state.writes
        if self._shows and self._stream.isatty():
            text, width = self._bar_format(info)
            self._bar = tqdm(
                total=info.progress.steps_per_epoch,
                initial=info.progress.step,
                bar_format=text,
                ncols=width,
                file=self._stream,
                leave=False,
            )

    def on_execution_end(self, info: HookInfo) -> None:
        """Moves the bar, or writes a line if the interval is over."""
        self._pace.add(info.state, info.execution_steps)
        if self._bar is not None:
            self._bar.bar_format, self._bar.ncols = self._bar_format(info)
            self._bar.update(info.progress.step - self._bar.n)
            self._rate = info.state.learning_rate()  # read one execution late, as the logs
        elif time.monotonic() - self._last_line_secs >= self._interval_secs:
            self._last_line_secs = time.monotonic()
            self._write(self._describe(info, f"step {info.progress.step}{_of_total(info)}"))

    def on_eval_begin(self, info: HookInfo) -> None:
        """Shows on the bar that validation runs."""
        if self._bar is not None:
            self._bar.bar_format, self._bar.ncols = self._bar_format(info, "validation")
            self._bar.refresh()

    def on_eval_end(self, info: HookInfo) -> None:
        """Leaves the time of the validation out of the speed."""
        self._pace.skip()

    def on_epoch_end(self, info: HookInfo) -> None:
        """Replaces the bar by the epoch's line."""
        self._close_bar()
        self._rate = info.state.learning_rate()
        self._write(self._describe(info, f"{info.progress.step} steps"))

    def on_train_end(self, info: HookInfo) -> None:
        """Leaves the terminal clean, also after an exception."""
        self._close_bar()

    @property
    def _stream(self) -> TextIO:
        # Looked up at each use: tests and notebooks replace sys.stdout.
        return self._given_stream or sys.stdout

    def _write(self, text: str) -> None:
        if not self._shows:
            return
        if self._given_line is not None:
            self._given_line(text)
        else:
            tqdm.write(text, file=self._stream)
            self._stream.flush()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _describe(self, info: HookInfo, steps: str) -> str:
        secs = f"{time.monotonic() - self._epoch_start_secs:.1f} s"
        speed = [] if self._examples_per_step is None else self._speed()
        parts = [_title(info), steps, secs, *speed, *format_logs(info.logs)]
        return " - ".join([*parts, *self._changed_rate(info)])

    def _bar_format(self, info: HookInfo, what: str = "") -> tuple[str, int]:
        """Returns the format of the bar as it is to be now, and its width."""
        step, total = info.progress.step, info.progress.steps_per_epoch
        left = f"{_title(info)} {what}".rstrip() + ":"
        if total:
            left += f" {100 * step // total:3d}%"
        logs = dict(sorted(info.logs.items(), key=lambda item: item[0] != "loss"))
        parts = [f"{step}{_of_total(info)}", *self._speed(), *format_logs(logs)]
        pace = self._pace.steps_per_sec
        if total and pace:
            parts.append(f"{tqdm.format_interval((total - step) / pace)} left")
        return bar_format(left, [*parts, *self._changed_rate(info)], columns_of(self._stream))

    def _speed(self) -> list[str]:
        pace = self._pace.steps_per_sec
        if pace is None:
            return []
        speed = pace * (self._examples_per_step or 1)
        return [f"{speed:,.{0 if speed >= 10 else 1}f} {self._unit}/s"]

    def _changed_rate(self, info: HookInfo) -> list[str]:
        rate = _rate_of(self._rate)
        if rate is None or "learning_rate" in info.logs:
            return []
        # It may come back to where it was, as after a warmup from 0 and a decay to 0.
        self._has_rate_changed |= rate != self._first_rate
        return [f"learning_rate: {rate:.4g}"] if self._has_rate_changed else []


def _rate_of(value: Any) -> float | None:
    return None if value is None else float(np.asarray(value))


def _title(info: HookInfo) -> str:
    return f"Epoch {info.progress.epoch + 1}/{info.progress.num_epochs}"


def _of_total(info: HookInfo) -> str:
    total = info.progress.steps_per_epoch
    return "" if total is None else f"/{total}"
