"""Writers: where the numbers of a run go. Files, memory, or several at once.

Every record is flat: `step`, `epoch` and `kind`, then one entry a metric: a float, or a list if the
metric's result is an array. Steps count from 1 over the whole run, epochs from 0, as in Keras.
`kind` is "execution" for training logs within epochs and "epoch" for those of a whole epoch, `val_`
keys included. A run that is resumed from an earlier step appends: where a step occurs twice, the
later record counts.
"""

from __future__ import annotations

import abc
import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np

from gradloop.files import json_text, make_directory, write_atomically

from ..hooks.base import Media
from ..timing import WRITERS, part

Kind = Literal["execution", "epoch"]
Record = dict[str, Any]
RECORD_KEYS = ("step", "epoch", "kind")


class Writer(abc.ABC):
    """Interface of all writers. Writing after `close` continues where it stopped."""

    @abc.abstractmethod
    def write(self, step: int, logs: Mapping[str, float], *, epoch: int, kind: Kind) -> None:
        """Writes one record.

        Args:
          step: Steps completed over the whole run when the logs were taken.
          logs: Metric name to value.
          epoch: Index of the epoch, from 0.
          kind: "execution" or "epoch".

        Raises:
          ValueError: If a metric has one of the names in `RECORD_KEYS`.
        """

    def write_media(self, step: int, media: Media) -> bool:
        """Writes an image, a histogram or a text; returns whether this writer can."""
        return False

    def flush(self) -> None:  # noqa: B027 (a writer that keeps nothing back has nothing to do)
        """Hands everything to the operating system."""

    def close(self) -> None:  # noqa: B027
        """Flushes and releases files; may be called twice."""


class MemoryWriter(Writer):
    """Keeps the records in the list `records`, and `(step, media)` in the list `media`."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.media: list[tuple[int, Media]] = []

    def write_media(self, step: int, media: Media) -> bool:
        """See `Writer.write_media`."""
        self.media.append((step, media))
        return True

    def write(self, step: int, logs: Mapping[str, float], *, epoch: int, kind: Kind) -> None:
        """See `Writer.write`."""
        self.records.append(_make_record(step, logs, epoch, kind))


class MultiWriter(Writer):
    """Hands each record to several writers, in order.

    Args:
      *writers: Writers of any kind; closing this one closes them.
    """

    def __init__(self, *writers: Writer) -> None:
        self.writers = writers

    def write(self, step: int, logs: Mapping[str, float], *, epoch: int, kind: Kind) -> None:
        """See `Writer.write`."""
        for writer in self.writers:
            with timed(writer):
                writer.write(step, logs, epoch=epoch, kind=kind)

    def write_media(self, step: int, media: Media) -> bool:
        """Hands it to all; returns whether one of them can write it."""
        return any([writer.write_media(step, media) for writer in self.writers])

    def flush(self) -> None:
        """See `Writer.flush`."""
        for writer in self.writers:
            with timed(writer):
                writer.flush()

    def close(self) -> None:
        """Closes all, even if one fails; that error is raised at the end."""
        with contextlib.ExitStack() as stack:
            for writer in self.writers:
                stack.callback(_close, writer)


def timed(writer: Writer) -> contextlib.AbstractContextManager[None]:
    """Returns a context in which a run's time counts for this writer."""
    # A MultiWriter times each of its writers itself.
    is_one = not isinstance(writer, MultiWriter)
    return part(WRITERS + type(writer).__name__) if is_one else contextlib.nullcontext()


def _close(writer: Writer) -> None:
    with timed(writer):
        writer.close()


class _FileWriter(Writer):
    """A writer of one file, which comes with the first record."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = make_directory(Path(path).parent) / Path(path).name
        self._file: TextIO | None = None

    def flush(self) -> None:
        """See `Writer.flush`."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """See `Writer.close`."""
        if self._file is not None:
            self._file.close()
            self._file = None


class JSONLinesWriter(_FileWriter):
    """Appends one JSON object a line, NaN as in `gradloop.files.json_text`. Continues a file.

    Args:
      path: Its directory is created; the file comes with the first record.
    """

    def write(self, step: int, logs: Mapping[str, float], *, epoch: int, kind: Kind) -> None:
        """See `Writer.write`."""
        line = json_text(_make_record(step, logs, epoch, kind))
        if self._file is None:
            _drop_torn_line(self.path)
            self._file = _open_append(self.path)
        self._file.write(line + "\n")


class CSVWriter(_FileWriter):
    """Appends one row a record. Continues an existing file.

    Floats are written in full (`repr`), arrays as JSON, a metric that a record lacks as an empty
    cell. A metric that appears later (`val_` keys) widens the header: the file is then written anew
    under a temporary name, and renamed.

    Args:
      path: Its directory is created; the file comes with the first record.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._columns: list[str] = []

    def write(self, step: int, logs: Mapping[str, float], *, epoch: int, kind: Kind) -> None:
        """See `Writer.write`.

        Raises:
          ValueError: Also if the file exists and is not a table of this class.
        """
        record = _make_record(step, logs, epoch, kind)
        if self._file is None:
            self._columns = self._read_header()
        missing = [name for name in record if name not in self._columns]
        if missing:
            self._widen(missing)
        if self._file is None:
            self._file = _open_append(self.path)
        csv.writer(self._file, lineterminator="\n").writerow(_cells(record, self._columns))

    def _read_header(self) -> list[str]:
        _drop_torn_line(self.path)
        if not self.path.exists() or self.path.stat().st_size == 0:
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            columns = next(csv.reader(file), [])
        if tuple(columns[:3]) != RECORD_KEYS:
            raise ValueError(
                f"{self.path} exists and is not a table of metrics (its first columns are "
                f"{columns[:3]}, not {list(RECORD_KEYS)}): name another file or move this one."
            )
        return columns

    def _widen(self, missing: list[str]) -> None:
        self.close()
        rows = read_csv(self.path) if self._columns else []
        self._columns = [*self._columns, *missing]

        def write_table(file: TextIO) -> None:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(self._columns)
            table.writerows(_cells(row, self._columns) for row in rows)

        write_atomically(self.path, write_table)


def read_csv(path: str | os.PathLike[str]) -> list[Record]:
    """Returns the records of a CSVWriter's file; empty cells are left out, as they were."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return [_typed(row) for row in csv.DictReader(file)]


def epoch_records(records: Iterable[Record]) -> list[Record]:
    """Returns the records of whole epochs in order, the later one where an epoch occurs twice."""
    by_epoch = {record["epoch"]: record for record in records if record["kind"] == "epoch"}
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def _typed(row: Mapping[str, str]) -> Record:
    types: dict[str, Callable[[str], Any]] = {"step": int, "epoch": int, "kind": str}
    return {name: types.get(name, _parse_number)(cell) for name, cell in row.items() if cell}


def _parse_number(cell: str) -> Any:
    return json.loads(cell) if cell.startswith("[") else float(cell)


def _make_record(step: int, logs: Mapping[str, float], epoch: int, kind: Kind) -> Record:
    reserved = sorted(set(logs) & set(RECORD_KEYS))
    if reserved:
        raise ValueError(f"a metric may not be named {reserved[0]!r}: rename it where you make it.")
    values = {name: np.asarray(value).astype(float).tolist() for name, value in logs.items()}
    return {"step": int(step), "epoch": int(epoch), "kind": kind} | values


def _cells(record: Record, columns: Iterable[str]) -> list[str]:
    values = (record.get(name, "") for name in columns)
    return [json_text(value) if isinstance(value, list) else str(value) for value in values]


def _open_append(path: Path) -> TextIO:
    # One system call a line, so that a kill loses one line at most.
    return path.open("a", encoding="utf-8", newline="", buffering=1)


def _drop_torn_line(path: Path) -> None:
    """Cuts a last line without a newline, which a killed process left: its numbers may be cut."""
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        complete = content[: content.rfind(b"\n") + 1]
        write_atomically(path, lambda file: file.write(complete), mode="wb")
