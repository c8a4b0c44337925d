"""How things get to disk: directories, files that are whole or not there, strict JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any


class DirectoryError(ValueError):
    """A directory cannot be made, or nothing can be written in it."""


def make_directory(path: str | os.PathLike[str]) -> Path:
    """Creates a directory and its parents and checks that files can be created in it.

    Raises:
      DirectoryError: If that is impossible; names the path, the reason and the fix.
    """
    directory = Path(path)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(directory, error.strerror or str(error)) from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise _unwritable(directory, "permission denied or a read-only disk")
    return directory


def _unwritable(path: Path, reason: str) -> DirectoryError:
    return DirectoryError(
        f"cannot write to {path}: {reason}. Name another directory, or make this one writable."
    )


def write_atomically(path: Path, write: Callable[[Any], object], mode: str = "w") -> None:
    """Replaces a file in one go: a kill at any time leaves the old file or the new one.

    Args:
      path: The file. It has one writer at a time.
      write: Called with the open temporary file.
      mode: "w" for text, "wb" for bytes.
    """
    text_options: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with _temporary(path) as temporary:
        with open(temporary, mode.replace("w", "x"), **text_options) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    _sync_directory(path.parent)


def link_atomically(source: Path, path: Path) -> None:
    """Gives a file a second name, in one go too. Both are in one directory.

    Raises:
      OSError: If the file system has no hard links.
    """
    with _temporary(path) as temporary:
        os.link(source, temporary)
        os.replace(temporary, path)  # does nothing if both are one file already
    _sync_directory(path.parent)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Gives the name of a file that is gone afterwards."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    # Of a process that had this number and was killed; it may be a link, never to be followed.
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):  # the error of the writing says more
            temporary.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    """Makes names durable: without this a power cut may forget a new one."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def json_text(value: Any, indent: int | None = None) -> str:
    """Returns strictly valid JSON.

    JSON has no NaN and no infinities: they become the strings "NaN", "Infinity" and "-Infinity",
    which `float()` takes back. NumPy scalars and arrays become numbers and lists, dataclasses
    objects, and everything else that JSON does not know its `str()`.
    """
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if isinstance(value, str | int | float | bool | None) else str(value)
