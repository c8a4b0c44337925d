"""Writers of files: JSON lines and CSV tables, whole after a kill, and as long as their run."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from gradloop.files import json_text, make_directory, write_atomically

from .records import (
    RECORD_KEYS,
    TIME,
    Kind,
    MemoryWriter,
    MultiWriter,
    Record,
    Writer,
    epoch_records,
    make_record,
)

__all__ = [
    "RECORD_KEYS",
    "CSVWriter",
    "JSONLinesWriter",
    "MemoryWriter",
    "MultiWriter",
    "Record",
    "Writer",
    "epoch_records",
    "read_csv",
]
_LEADING = RECORD_KEYS[:3]
Clock = Callable[[], float]


class _FileWriter(Writer):
    """A writer of one file, a line a record, which comes with the first record."""

    _num_header_lines = 0

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock | None = None) -> None:
        self.path = make_directory(Path(path).parent) / Path(path).name
        self._clock = clock
        self._file: io.FileIO | None = None
        self._num_records = 0

    @property
    def location(self) -> str:
        """See `Writer.location`."""
        return str(self.path)

    def close(self) -> None:
        """See `Writer.close`."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def restore(self, state: dict[str, Any]) -> None:
        """See `Writer.restore`: the file has the bytes again that it had."""
        if "records" not in state:
            return
        self.close()
        lines = _complete_lines(self.path)
        num_missing = state["records"] - self._count(lines)
        if num_missing > 0:
            warnings.warn(
                f"{self.path} lacks {num_missing} of the {state['records']} records that it had "
                "when the run was saved: the run goes on behind what there is. If you have the "
                "file elsewhere, put it back and resume again.",
                stacklevel=2,
            )
        lines = lines[: self._num_header_lines + state["records"]]
        kept = self._kept(lines, state)
        if kept is lines:  # A file can be cut where there is no room to write it anew.
            _cut(self.path, lines)
        else:
            write_atomically(self.path, lambda file: file.writelines(kept), mode="wb")

    def _kept(self, lines: list[bytes], state: dict[str, Any]) -> list[bytes]:
        """Returns the lines as they were, `lines` itself if they are the same."""
        return lines

    def _record(self, step: int, logs: Mapping[str, float], epoch: int, kind: Kind) -> Record:
        record = make_record(step, logs, epoch, kind)
        if self._clock is None:
            return record
        keys = {name: record.pop(name) for name in _LEADING}
        return keys | {TIME: round(self._clock(), 3)} | record

    def _count(self, lines: list[bytes]) -> int:
        return max(len(lines) - self._num_header_lines, 0)

    def _read(self) -> list[bytes]:
        """Returns the lines that there are, before the first is appended."""
        lines = _complete_lines(self.path)
        _cut(self.path, lines)  # A torn line is of a process that was killed.
        self._num_records = self._count(lines)
        return lines

    def _append(self, line: str) -> None:
        if self._file is None:
            # Unbuffered: one system call a line, so that a kill loses one line at most.
            self._file = self.path.open("ab", buffering=0)
        rest = memoryview(line.encode())
        try:
            while rest:  # A disk that is nearly full takes a part.
                rest = rest[self._file.write(rest) :]
        except OSError:
            self.close()  # The next write opens the file anew, which cuts the torn line.
            raise
        self._num_records += 1


class JSONLinesWriter(_FileWriter):
    """Appends one JSON object a line, NaN as in `gradloop.files.json_text`. Continues a file.

    Args:
      path: Its directory is created; the file comes with the first record.
      clock: Returns the time of a record, in seconds since 1970; None: records have none.
    """

    def write(self, step: int, logs: Mapping[str, float], *, epoch: int, kind: Kind) -> None:
        """See `Writer.write`."""
        line = json_text(self._record(step, logs, epoch, kind))
        if self._file is None:
            self._read()
        self._append(line + "\n")

    def state(self) -> dict[str, Any]:
        """Returns the number of records in the file, also of those from before this run."""
        sync(self.path)
        is_open = self._file is not None
        return {"records": self._num_records if is_open else len(_complete_lines(self.path))}


class CSVWriter(_FileWriter):
    """Appends one row a record. Continues an existing file.

    Floats are written in full (`repr`), arrays as JSON, a metric that a record lacks as an empty
    cell. A metric that appears later (`val_` keys) widens the header: the file is then written anew
    under a temporary name, and renamed.

    Args:
      path: Its directory is created; the file comes with the first record.
      clock: Returns the time of a record, in seconds since 1970; None: records have none.
    """

    _num_header_lines = 1

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock | None = None) -> None:
        super().__init__(path, clock=clock)
        self._columns: list[str] = []

    def write(self, step: int, logs: Mapping[str, float], *, epoch: int, kind: Kind) -> None:
        """See `Writer.write`.

        Raises:
          ValueError: Also if the file exists and is not a table of this class.
        """
        record = self._record(step, logs, epoch, kind)
        if self._file is None:
            self._columns = self._header(self._read())
        missing = [name for name in record if name not in self._columns]
        if missing:
            self._widen(missing)
        self._append(_row(_cells(record, self._columns)))

    def state(self) -> dict[str, Any]:
        """Returns the number of rows in the file, also of those from before this run; columns."""
        sync(self.path)
        if self._file is not None:
            return {"records": self._num_records, "columns": list(self._columns)}
        lines = _complete_lines(self.path)
        return {"records": self._count(lines), "columns": self._header(lines)}

    def _kept(self, lines: list[bytes], state: dict[str, Any]) -> list[bytes]:
        columns, there = state["columns"], self._header(lines)
        if columns == there:
            return lines
        if not columns:  # There was no table.
            return []
        rows = csv.DictReader(line.decode() for line in lines)
        cells = [columns, *([row.get(name) or "" for name in columns] for row in rows)]
        return [_row(one).encode() for one in cells]

    def _header(self, lines: list[bytes]) -> list[str]:
        columns = next(csv.reader([line.decode() for line in lines[:1]]), [])
        if columns and tuple(columns[:3]) != _LEADING:
            raise ValueError(
                f"{self.path} exists and is not a table of metrics (its first columns are "
                f"{columns[:3]}, not {list(_LEADING)}): name another file or move this one."
            )
        return columns

    def _widen(self, missing: list[str]) -> None:
        self.close()
        records = read_csv(self.path) if self._columns else []
        columns = [*self._columns, *missing]
        rows = [columns, *(_cells(record, columns) for record in records)]
        write_atomically(self.path, lambda file: file.writelines(map(_row, rows)))
        self._columns = columns


def read_csv(path: str | os.PathLike[str]) -> list[Record]:
    """Returns the records of a CSVWriter's file; empty cells are left out, as they were."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return [_typed(row) for row in csv.DictReader(file)]


def sync(path: Path) -> None:
    """Forces what was written to a file to disk, if the file exists."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        os.fsync(file.fileno())


def _cells(record: Record, columns: Iterable[str]) -> list[str]:
    values = (record.get(name, "") for name in columns)
    return [json_text(value) if isinstance(value, list) else str(value) for value in values]


def _row(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _complete_lines(path: Path) -> list[bytes]:
    """Returns the lines of a file with their newlines, without a torn one; [] if it is missing."""
    path.parent.stat()  # With its folder gone, it is not known how many there are.
    if not path.exists():
        return []
    with path.open("rb") as file:
        return [line for line in file if line.endswith(b"\n")]


def _cut(path: Path, lines: list[bytes]) -> None:
    """Drops what follows the first lines of a file."""
    num_bytes = sum(map(len, lines))
    if path.exists() and path.stat().st_size > num_bytes:
        os.truncate(path, num_bytes)


def _typed(row: Mapping[str, str]) -> Record:
    types: dict[str, Callable[[str], Any]] = {"step": int, "epoch": int, "kind": str}
    return {name: types.get(name, _parse_number)(cell) for name, cell in row.items() if cell}


def _parse_number(cell: str) -> Any:
    return json.loads(cell) if cell.startswith("[") else float(cell)
