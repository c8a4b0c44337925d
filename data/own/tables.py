"""Tables: rows of numbers and words, of which one column is predicted.

A table that does not fit into memory is written once, as rows of float32, into the user's cache: a
row of text or of a column store cannot be read alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gradloop.usage import did_you_mean

from ..splits import Split, Splits
from . import kept, targets
from .blobs import Rows
from .errors import FileError, shown
from .options import FileOptions
from .table_files import Block, blocks, column_names

Array = npt.NDArray[Any]
# A column of more different words than that is a name or a text, and no kind of thing.
MOST_WORDS = 100
# Of bytes in memory for a byte of text.
_GROWTH = 2
_MISSING = ("NA", "N/A", "nan", "NaN", "null", "NULL", "None")


@dataclasses.dataclass
class _Column:
    """What a scan finds in a column.

    Attributes:
      is_text: Whether a cell is no number.
      words: Different values, up to one more than `MOST_WORDS`.
      missing: Where a cell stands for nothing, which text may mean as a word; None: nowhere.
      has_numbers: Whether a file has it as numbers, and not as text of any kind.
    """

    is_text: bool = False
    words: set[str] = dataclasses.field(default_factory=set)
    missing: str | None = None
    has_numbers: bool = False

    def look(self, name: str, values: Array, place: Callable[[int], str]) -> None:
        """Takes the values of a block into account."""
        if values.dtype.kind != "U":
            self.has_numbers = True
            return
        _refuse_empty(name, values, place)
        is_missing = np.isin(values, _MISSING)
        if is_missing.any() and self.missing is None:
            self.missing = place(int(is_missing.argmax()))
        self.is_text = self.is_text or _numbers(values[~is_missing]) is None
        if len(self.words) <= MOST_WORDS:
            self.words.update(values.tolist())

    def check(self, name: str) -> None:
        """Raises FileError if the column cannot be an input."""
        if not self.is_text and self.missing is not None:
            raise _missing_value(name, self.missing)
        if self.is_text and self.has_numbers:
            raise FileError(
                f"column {name!r} has numbers in one file and words in another, such as "
                f"{shown(sorted(self.words)[:3])}: write it as one kind."
            )
        if self.is_text and len(self.words) > MOST_WORDS:
            raise FileError(
                f"column {name!r} has more than {MOST_WORDS} different words, such as "
                f"{shown(sorted(self.words)[:3])}: one input for each would teach nothing; name "
                "the columns to read with --features."
            )

    def encode(self, name: str, block: Block) -> Array:
        """Returns the inputs of a block: one column of numbers, or one a word, float32."""
        values = block.columns[name]
        if self.is_text:
            return np.asarray(values[:, None] == np.array(sorted(self.words)), np.float32)
        numbers = _numbers(values)
        assert numbers is not None, "the scan has seen it"
        with np.errstate(over="ignore"):  # what float32 cannot hold is not finite, either
            floats = np.asarray(numbers, np.float32)
        bad = np.flatnonzero(~np.isfinite(floats))
        if bad.size:
            raise _missing_value(name, block.place(int(bad[0])))
        return floats[:, None]


def load_tables(parts: dict[str, list[Path]], options: FileOptions) -> Splits:
    """Returns the splits of tables.

    Args:
      parts: "train", "test" and "val" to the files of each.
      options: Of which `target`, `target_type` and `features` count.

    Raises:
      FileError: If a file cannot be read, columns are missing, or a cell is empty.
    """
    options.refuse_others(
        ("target", "target_type", "features", "in_memory"), f"{parts['train'][0]}, a table"
    )
    features = _features(parts, options)
    files = [file for paths in parts.values() for file in paths]
    if options.fits(_GROWTH * sum(file.stat().st_size for file in files)):
        memory: dict[str, Array] = {}

        def allocate(part: str, shape: tuple[int, int]) -> Array:
            memory[part] = np.empty(shape, np.float32)
            return memory[part]

        found = _read(parts, features, options, allocate)
        of_part = dict(zip(parts, found.parts, strict=True))
        made = {part: Split(x, of_part[part], found.num_classes) for part, x in memory.items()}
        return Splits(made["train"], made.get("test"), made.get("val"), found.class_names)
    settings = ["table", {k: len(v) for k, v in parts.items()}, options.target, features]
    folder = kept.keep(
        files, [*settings, options.target_type], lambda to: _write(to, parts, features, options)
    )
    return _from_kept(folder, list(parts))


def _features(parts: dict[str, list[Path]], options: FileOptions) -> list[str]:
    """Returns the columns that are inputs, once it is known that all tables have them."""
    first = parts["train"][0]
    names = column_names(first)
    if options.target is None:
        raise FileError(f"{first}: which column is predicted? Pass --target NAME: {shown(names)}.")
    others = [name for name in names if name != options.target]
    features = others if options.features is None else list(options.features)
    for file in (file for paths in parts.values() for file in paths):
        found = column_names(file)
        for name in (options.target, *features):
            if name not in found:
                raise FileError(
                    f"{file} has no column {name!r}; it has {shown(found)}."
                    f"{did_you_mean(name, found)}"
                )
    if options.target in features or not features:
        what = (
            f"{options.target!r} is predicted" if features else "there is no column but the target"
        )
        raise FileError(f"{first}: {what}: expected other columns as inputs (--features).")
    return features


def _read(
    parts: dict[str, list[Path]],
    features: list[str],
    options: FileOptions,
    allocate: Callable[[str, tuple[int, int]], Array],
) -> targets.Targets:
    """Fills an array of inputs for each part, and returns the targets."""
    target = options.target or ""
    columns = {name: _Column() for name in features}
    raw_targets = []
    for part, files in parts.items():
        raw_targets.append(_scan(files, target, columns))
        if not len(raw_targets[-1]):
            raise FileError(f"{shown(files)}: {part} has no rows below the names of the columns.")
    for name, column in columns.items():
        column.check(name)
    width = sum(len(c.words) if c.is_text else 1 for c in columns.values())
    for (part, files), y in zip(parts.items(), raw_targets, strict=True):
        _fill(allocate(part, (len(y), width)), files, columns)
    return targets.encode(_as_one_kind(raw_targets), f"column {target!r}", options.target_type)


def _scan(files: list[Path], target: str, columns: dict[str, _Column]) -> Array:
    """Returns the target column as it is read."""
    found = []
    for block in (b for file in files for b in blocks(file, [*columns, target])):
        for name, column in columns.items():
            column.look(name, block.columns[name], block.place)
        found.append(block.columns[target])
        _refuse_missing(target, found[-1], block.place)
    return np.concatenate(found) if found else np.empty(0)


def _fill(x: Array, files: list[Path], columns: dict[str, _Column]) -> None:
    start = 0
    for block in (b for file in files for b in blocks(file, [*columns])):
        inputs = np.concatenate([c.encode(name, block) for name, c in columns.items()], axis=1)
        x[start : start + len(inputs)] = inputs
        start += len(inputs)


def _refuse_empty(name: str, values: Array, place: Callable[[int], str]) -> None:
    is_empty = np.char.strip(values) == ""
    if is_empty.any():
        raise _missing_value(name, place(int(is_empty.argmax())))


def _refuse_missing(name: str, values: Array, place: Callable[[int], str]) -> None:
    if values.dtype.kind == "U":
        _refuse_empty(name, values, place)
        is_missing = np.isin(values, _MISSING)
    else:
        is_missing = ~np.isfinite(values)
    if is_missing.any():
        raise _missing_value(name, place(int(is_missing.argmax())))


def _missing_value(name: str, place: str) -> FileError:
    return FileError(
        f"{place}: column {name!r} has no value there, or none that is a finite float32: fill it "
        "in, or leave the row out."
    )


def _as_one_kind(parts: list[Array]) -> list[Array]:
    """Returns strings that are all integers, or all numbers, as such."""
    if any(y.dtype.kind != "U" for y in parts):
        return parts
    for kind in (np.int64, np.float64):
        try:
            return [y.astype(kind) for y in parts]
        except (ValueError, OverflowError):
            continue
    return parts


def _numbers(values: Array) -> Array | None:
    """Returns cells as float64; None if one is no number."""
    try:
        return values.astype(np.float64)
    except ValueError:
        return None


def _write(
    folder: Path, parts: dict[str, list[Path]], features: list[str], options: FileOptions
) -> None:
    def allocate(part: str, shape: tuple[int, int]) -> Array:
        path = folder / f"x_{part}.npy"
        rows = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        with path.open("r+b") as file:  # a full disk would end the process at a write into the map
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return rows

    found = _read(parts, features, options, allocate)
    for part, y in zip(parts, found.parts, strict=True):
        np.save(folder / f"y_{part}.npy", y)
    facts = {"num_classes": found.num_classes, "class_names": found.class_names}
    (folder / "facts.json").write_text(json.dumps(facts), "utf-8")


def _from_kept(folder: Path, parts: list[str]) -> Splits:
    facts = json.loads((folder / "facts.json").read_text("utf-8"))
    made = {}
    for part in parts:
        path = folder / f"x_{part}.npy"
        x = np.load(path, mmap_mode="r")
        made[part] = Split(
            np.arange(len(x)), np.load(folder / f"y_{part}.npy"), facts["num_classes"],
            Rows(path, x.offset, x.shape[1:], x.dtype).decode, x.shape[1:],
        )  # fmt: skip
    names = None if facts["class_names"] is None else tuple(facts["class_names"])
    return Splits(made["train"], made.get("test"), made.get("val"), names)
