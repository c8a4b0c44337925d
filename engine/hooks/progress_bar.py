"""ProgressBar: a bar on a terminal, plain lines elsewhere, one line an epoch on both."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import numpy as np
from tqdm import tqdm

from .base import Hook, HookInfo


class ProgressBar(Hook):
    """Shows epoch, steps and logs.

    On a terminal: a bar for the running epoch, which gives way to one line when the epoch ends.
    Elsewhere (a file, a pipe): plain lines without control characters. With several workers, the
    chief shows them.

    Args:
      stream: Where the bar or the lines go. Default: `sys.stdout` as it is at that moment.
      interval_secs: Minimum time between two plain lines within an epoch.
      line: Called with each whole line, without its newline. Default: writes it to the stream.

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
    ) -> None:
        if not interval_secs >= 0:
            raise ValueError(f"interval_secs must be 0 or more, not {interval_secs!r}.")
        self._given_stream = stream
        self._interval_secs = interval_secs
        self._given_line = line
        self._bar: Any = None
        self._shows = True
        self._epoch_start_secs = 0.0
        self._last_line_secs = 0.0

    def on_epoch_begin(self, info: HookInfo) -> None:
        """Opens a bar, on a terminal."""
        self._epoch_start_secs = self._last_line_secs = time.monotonic()
        self._shows = info.state.writes
        if self._shows and self._stream.isatty():
            self._bar = tqdm(
                total=info.progress.steps_per_epoch,
                initial=info.progress.step,
                desc=_title(info),
                unit="step",
                file=self._stream,
                leave=False,
                **_width_options(self._stream),
            )

    def on_execution_end(self, info: HookInfo) -> None:
        """Moves the bar, or writes a line if the interval is over."""
        if self._bar is not None:
            self._bar.set_postfix_str(_format_logs(info.logs), refresh=False)
            self._bar.update(info.progress.step - self._bar.n)
        elif time.monotonic() - self._last_line_secs >= self._interval_secs:
            self._last_line_secs = time.monotonic()
            self._write(self._describe(info, f"step {info.progress.step}{_of_total(info)}"))

    def on_eval_begin(self, info: HookInfo) -> None:
        """Shows on the bar that validation runs."""
        if self._bar is not None:
            self._bar.set_description_str(f"{_title(info)} (validation)")

    def on_epoch_end(self, info: HookInfo) -> None:
        """Replaces the bar by the epoch's line."""
        self._close_bar()
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
        secs = time.monotonic() - self._epoch_start_secs
        logs = _format_logs(info.logs, separator=" - ")
        return " - ".join(part for part in (_title(info), steps, f"{secs:.1f} s", logs) if part)


def _width_options(stream: TextIO) -> dict[str, Any]:
    # Terminals of containers and CI often report a size of 0 by 0, on which tqdm shows nothing.
    try:
        num_columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # The stream has no file descriptor, or a strange one.
        num_columns = 0
    return {"dynamic_ncols": True} if num_columns else {"ncols": 80, "nrows": 24}


def _title(info: HookInfo) -> str:
    return f"Epoch {info.progress.epoch + 1}/{info.progress.num_epochs}"


def _of_total(info: HookInfo) -> str:
    total = info.progress.steps_per_epoch
    return "" if total is None else f"/{total}"


def _format_logs(logs: Mapping[str, float], separator: str = ", ") -> str:
    """Four decimals, as in fit; scientific notation for values that would look like 0."""
    return separator.join(
        f"{name}: {value:.4e}" if 0 < abs(value) < 1e-3 else f"{name}: {value:.4f}"
        for name, value in logs.items()
        if np.ndim(value) == 0  # An array would fill the line.
    )
