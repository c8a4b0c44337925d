"""Datasets of one's own: files and folders, and what somebody's function returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gradloop.usage import did_you_mean

from ..splits import Splits
from . import arrays, images, records, tables
from .errors import FileError, shown, unreadable
from .options import FileOptions
from .table_files import EXTENSIONS as TABLES

__all__ = ["FileError", "FileOptions", "from_value", "load_path"]

# The files of each part, and how they are read.
Parts = dict[str, list[Path]]
# File extension to what reads such files; a folder of others is one of images.
_READERS: dict[str, Callable[[Parts, FileOptions], Splits]] = {
    **dict.fromkeys(TABLES, tables.load_tables),
    **dict.fromkeys((".tfrecord", ".tfrecords"), records.load_records),
}
_LEGAL = (".npz", *_READERS)


def load_path(path: Path, options: FileOptions) -> Splits:
    """Returns the dataset in a file or folder.

    A folder holds files of one kind, `train*`, `test*` and `val*`, or images.

    Raises:
      FileError: If there is none, or something is wrong with it; the message has the fix.
    """
    if not path.exists():
        raise FileError(f"{path} does not exist.{_near(path)}")
    if path.suffix == ".npz":
        return arrays.load_npz(path, options)
    parts = _parts_of(path) if path.is_dir() else {"train": [path]}
    if not parts:
        return images.load_folder(path, options)
    suffix = parts["train"][0].suffix
    if suffix not in _READERS:
        raise FileError(
            f"{path}: the extension {suffix!r} is none of a dataset: expected "
            f"{', '.join(_LEGAL)}, or a folder of images.{did_you_mean(suffix, _LEGAL)}"
        )
    return _READERS[suffix](parts, options)


def _parts_of(folder: Path) -> Parts:
    """Returns the files of each part; nothing if the folder has no file of such a kind."""
    try:
        files = sorted(f for f in folder.iterdir() if f.suffix in _READERS)
    except OSError as error:
        raise unreadable(folder, error) from error
    suffixes = sorted({f.suffix for f in files})
    if len(suffixes) > 1:
        raise FileError(f"{folder} has files of several kinds, {shown(suffixes)}: keep one.")
    parts = {part: [f for f in files if f.name.startswith(part)] for part in images.PART_FOLDERS}
    parts = {part: found for part, found in parts.items() if found}
    num_found = sum(len(found) for found in parts.values())
    if parts and (num_found < len(files) or "train" not in parts):
        raise FileError(
            f"{folder} has {shown(f.name for f in files)}: expected names that begin with "
            "train, and with test or val if there are such, or none of them."
        )
    return parts or ({"train": files} if files else {})


def _near(path: Path) -> str:
    try:
        return did_you_mean(path.name, [p.name for p in path.parent.iterdir()])
    except OSError:
        return "" if path.parent.exists() else f" Neither does the folder {path.parent}."


def from_value(value: Any, where: str, options: FileOptions) -> Splits:
    """Returns the dataset that somebody's function has returned.

    Args:
      value: `(x_train, y_train), (x_test, y_test)`; a dict of `x_train`, `y_train` and so on, or of
        `x` and `y`; `Splits`; or a path.
      where: Name of the function.
      options: Of files, if it is a path.

    Raises:
      FileError: If it is something else, or arrays do not go together.
    """
    if isinstance(value, str | Path):
        return load_path(Path(value), options)
    if isinstance(value, Splits):
        options.refuse_others((), f"the Splits that {where} returns")
        return value
    options.refuse_others(("target_type",), f"what {where} returns")
    if isinstance(value, Mapping):
        return arrays.from_named(value, where, options)
    pairs = value if isinstance(value, tuple) else ()
    if len(pairs) == 2 and all(isinstance(p, tuple) and len(p) == 2 for p in pairs):
        (x_train, y_train), (x_test, y_test) = pairs
        named = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
        return arrays.from_named(named, where, options)
    raise FileError(
        f"{where} returned a {type(value).__name__}: expected (x_train, y_train), (x_test, "
        "y_test), a dict of x_train, y_train and so on, gradloop.data.Splits, or a path."
    )
