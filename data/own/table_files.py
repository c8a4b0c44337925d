"""Files of tables, CSV and Parquet, as blocks of columns."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import FileError, shown, unreadable

Array = npt.NDArray[Any]
# Rows that are read at a time.
_BLOCK = 8192
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
EXTENSIONS = (*_SEPARATORS, ".parquet")


class Block(NamedTuple):
    """Some rows of a table.

    Attributes:
      columns: Name to values: strings of a text file, or as the file has them.
      place: Maps the number of a row in the block to where it is, for messages.
    """

    columns: dict[str, Array]
    place: Callable[[int], str]


def column_names(path: Path) -> list[str]:
    """Returns the names of the columns of a table.

    Raises:
      FileError: If it cannot be read, or has no names.
    """
    names = _parquet(path).schema_arrow.names if path.suffix == ".parquet" else _csv_names(path)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FileError(f"{path} has two columns {twice[0]!r}: rename one.")
    return names


def blocks(path: Path, names: list[str]) -> Iterator[Block]:
    """Yields the rows of a table, in their order.

    Args:
      path: A file of a kind of `EXTENSIONS`.
      names: The columns that are asked for.

    Raises:
      FileError: If it cannot be read, or a row has more or fewer cells than there are columns.
    """
    yield from (_parquet_blocks if path.suffix == ".parquet" else _csv_blocks)(path, names)


def _csv_names(path: Path) -> list[str]:
    first = next(_csv_rows(path), None)
    if not first:
        raise FileError(f"{path} is empty: expected a row with the names of the columns.")
    names = [name.strip() for name in first[1]]
    unnamed = [name for name in names if not name or _is_number(name)]
    if unnamed:
        raise FileError(
            f"{path} begins with {shown(first[1])}: expected a row with the names of the columns."
        )
    return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the number of the line at which each row ends, and its cells; not empty lines."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=_SEPARATORS[path.suffix], strict=True)
            yield from ((reader.line_num, row) for row in reader if row)
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from error
    except csv.Error as error:
        raise FileError(f"{path}, line {reader.line_num}: {error}: correct it.") from error


def _csv_blocks(path: Path, names: list[str]) -> Iterator[Block]:
    rows = _csv_rows(path)
    _, header = next(rows)
    places = [[name.strip() for name in header].index(name) for name in names]
    taken: list[list[str]] = []
    lines: list[int] = []
    for line, row in rows:
        if len(row) != len(header):
            raise FileError(
                f"{path}, line {line}: {len(row)} cells, and the table has {len(header)} columns: "
                "correct the line (a cell with a comma needs quotation marks)."
            )
        taken.append(row)
        lines.append(line)
        if len(taken) == _BLOCK:
            yield _csv_block(path, names, places, taken, lines)
            taken, lines = [], []
    if taken:
        yield _csv_block(path, names, places, taken, lines)


def _csv_block(
    path: Path, names: list[str], places: list[int], rows: list[list[str]], lines: list[int]
) -> Block:
    columns = list(zip(*rows, strict=True))
    return Block(
        {n: np.array(columns[p]) for n, p in zip(names, places, strict=True)},
        lambda row: f"{path}, line {lines[row]}",
    )


def _parquet(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise FileError(
            f"{path}: Parquet is read by pyarrow, which is missing: pip install "
            "'gradloop[parquet]'."
        ) from error
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise unreadable(path, error) from error


def _parquet_blocks(path: Path, names: list[str]) -> Iterator[Block]:
    import pyarrow

    start = 1
    try:
        for batch in _parquet(path).iter_batches(_BLOCK, columns=names):
            columns = {name: _to_numpy(path, name, batch.column(name)) for name in names}
            yield Block(columns, functools.partial(_row_of, path, start))
            start += len(batch)
    except (OSError, pyarrow.ArrowException) as error:
        raise unreadable(path, error) from error


def _row_of(path: Path, start: int, row: int) -> str:
    return f"{path}, row {start + row}"


def _to_numpy(path: Path, name: str, column: Any) -> Array:
    import pyarrow.types as kinds

    kind = column.type
    if kinds.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if kinds.is_string(kind) or kinds.is_large_string(kind):
        return np.array(["" if text is None else text for text in column.to_pylist()], str)
    if kinds.is_boolean(kind) or kinds.is_integer(kind):
        values = column.to_numpy(zero_copy_only=False)
        return np.asarray(values, np.float64 if column.null_count else np.int64)
    if kinds.is_floating(kind) or kinds.is_decimal(kind):
        return np.asarray(column.cast("float64").to_numpy(zero_copy_only=False))
    raise FileError(
        f"{path}: column {name!r} is of type {kind}: expected numbers or strings; convert it, or "
        "name the columns to read with --features."
    )
