"""RetryingWriter: training goes on when a disk is full, and the numbers come when it has room."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from ..hooks.base import Media
from .records import RECORD_KEYS, Kind, MultiWriter, Record, Writer, make_record

MAX_KEPT = 10_000  # records: some megabytes


def retrying(writer: Writer) -> Writer:
    """Returns a writer that goes on after an OSError; of several writers, each by itself."""
    if isinstance(writer, MultiWriter):
        return MultiWriter(*map(retrying, writer.writers))
    return RetryingWriter(writer)


class RetryingWriter(Writer):
    """Hands records to a writer, and tries again later where that raises OSError.

    It keeps the records since the last flush. When writing fails, it warns once; with each next
    record it takes the writer back to that flush (`Writer.restore`) and hands it all records since,
    in order, so that nothing is torn and nothing comes twice. It keeps at most `MAX_KEPT`; beyond,
    the oldest are lost, which it says. Media are not kept.

    Args:
      writer: The writer. If it has no `state`, what failed alone is written again.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._base: dict[str, Any] | None = None  # the writer's state before the records kept
        self._kept: list[Record] = []
        self._num_written = 0  # of those kept
        self._is_behind = False  # the writer must be restored before it writes
        self._is_failing = False
        self._num_lost = 0

    @property
    def name(self) -> str:
        """That of the writer."""
        return self._writer.name

    @property
    def location(self) -> str:
        """That of the writer."""
        return self._writer.location

    def write(self, step: int, logs: Mapping[str, float], *, epoch: int, kind: Kind) -> None:
        """See `Writer.write`."""
        self._kept.append(make_record(step, logs, epoch, kind))
        self._attempt(self._settle if len(self._kept) >= MAX_KEPT else self._hand_over)

    def write_media(self, step: int, media: Media) -> bool:
        """See `Writer.write_media`: what cannot be written now is lost."""
        is_written = True
        try:
            is_written = self._writer.write_media(step, media)
        except OSError as error:
            self._fail(error)
        return is_written

    def flush(self) -> None:
        """See `Writer.flush`."""
        self._attempt(self._settle)

    def close(self) -> None:
        """See `Writer.close`. Warns if there are records that could not be written."""
        self.flush()
        try:
            self._writer.close()
        except OSError as error:
            self._fail(error)
        if self._kept:
            warnings.warn(
                f"{self.location} lacks the last {len(self._kept) + self._num_lost} records, "
                "which could not be written.",
                stacklevel=2,
            )

    def state(self) -> dict[str, Any]:
        """Returns the writer's state, with the records that it could not write."""
        self.flush()
        return (self._base or {}) | ({"kept": list(self._kept)} if self._kept else {})

    def restore(self, state: dict[str, Any]) -> None:
        """See `Writer.restore`."""
        self._base = {name: value for name, value in state.items() if name != "kept"}
        self._kept = list(state.get("kept", ()))
        self._num_lost = 0
        self._is_behind = True
        self._attempt(self._hand_over)

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            self._fail(error)
        else:
            self._end_failure()

    def _hand_over(self) -> None:
        if self._base is None:
            self._base = self._writer.state()
        if self._is_behind:
            self._writer.restore(self._base)
            self._num_written, self._is_behind = 0, False
        for record in self._kept[self._num_written :]:
            logs = {name: value for name, value in record.items() if name not in RECORD_KEYS}
            self._writer.write(record["step"], logs, epoch=record["epoch"], kind=record["kind"])
            self._num_written += 1

    def _settle(self) -> None:
        self._hand_over()
        self._base = self._writer.state()
        self._kept, self._num_written = [], 0

    def _fail(self, error: OSError) -> None:
        if not self._base:  # It cannot be taken back: what it has written stays.
            del self._kept[: self._num_written]
        self._num_written, self._is_behind = 0, True
        num_over = max(len(self._kept) - MAX_KEPT, 0)
        del self._kept[:num_over]
        self._num_lost += num_over
        if not self._is_failing:
            self._is_failing = True
            warnings.warn(
                f"cannot write to {self.location}: {error.strerror or error}. Training goes on, "
                "and the numbers are written when that is possible again: make room, or make the "
                f"folder writable. Up to {MAX_KEPT:,} records are kept until then.",
                stacklevel=2,
            )

    def _end_failure(self) -> None:
        if self._is_failing and self._num_lost:
            warnings.warn(
                f"{self.location} can be written again, and lacks {self._num_lost} records.",
                stacklevel=2,
            )
        self._is_failing, self._num_lost = False, 0
