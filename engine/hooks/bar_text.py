"""What a progress bar says: as many of its parts as a terminal has columns for."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

import numpy as np

if TYPE_CHECKING:
    from ..state import TrainState

MIN_BAR = 10  # columns: a shorter one shows nothing
_DEFAULT_COLUMNS = 80
# A terminal echoes `^C` behind the bar: on a line of its own, it would stay there.
_ECHO = 3


def columns_of(stream: TextIO) -> int:
    """Returns the width of a terminal."""
    try:
        num_columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # The stream has no file descriptor, or a strange one.
        num_columns = 0
    # Terminals of containers and CI often report a size of 0 by 0.
    return num_columns or _DEFAULT_COLUMNS


def bar_format(left: str, parts: Sequence[str], num_columns: int) -> tuple[str, int]:
    """Returns the format of a tqdm bar, and its width.

    Args:
      left: What stands before the bar.
      parts: What stands behind it, the most important first: the first ones for which there is room
        beside a bar of `MIN_BAR` columns.
      num_columns: Of the terminal.
    """
    width = max(num_columns - _ECHO, 1)
    room, shown = width - len(left) - MIN_BAR - len("||"), ""
    for part in parts:
        text = f"{shown}, {part}" if shown else f" {part}"
        if len(text) > room:
            break
        shown = text
    return f"{_escape(left)}|{{bar}}|{_escape(shown)}", width


def _escape(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def format_logs(logs: Mapping[str, float]) -> list[str]:
    """Four decimals, as in fit; scientific notation for values that would look like 0."""
    return [
        f"{name}: {value:.4e}" if 0 < abs(value) < 1e-3 else f"{name}: {value:.4f}"
        for name, value in logs.items()
        if np.ndim(value) == 0  # An array would fill the line.
    ]


class Pace:
    """Steps a second of an epoch so far. Executions that traced a graph do not count."""

    def __init__(self) -> None:
        self._num_traces = 0
        self.begin()

    def begin(self) -> None:
        """Starts anew, with an epoch."""
        self._num_steps, self._secs = 0, 0.0
        self.skip()

    def skip(self) -> None:
        """Leaves out the time since the last execution."""
        self._since = time.perf_counter()

    def add(self, state: TrainState, num_steps: int) -> None:
        """Counts an execution that has ended now."""
        secs = time.perf_counter() - self._since
        num_traces = sum(function.num_traces for function in state.functions.values())
        if num_traces == self._num_traces:
            self._num_steps += num_steps
            self._secs += secs
        self._num_traces = num_traces
        self.skip()

    @property
    def steps_per_sec(self) -> float | None:
        """None if each execution traced."""
        return self._num_steps / self._secs if self._secs else None
