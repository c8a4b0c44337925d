"""How things get to disk: directories, files that are whole or not there, strict JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

# What a disk says of a write without naming the file.
_OF_DISKS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE}
_FIXES = {
    errno.ENOSPC: "Free some space, or name another folder.",
    errno.EDQUOT: "Free some space, or name another folder.",
    errno.ENOENT: "Check the name, or make it.",
    errno.ENOTDIR: "Move the file that is in its place, or name another folder.",
    errno.EISDIR: "Move the folder that is in its place, or name another file.",
    errno.EEXIST: "Move what is in its place, or name another folder.",
}
_OTHER_FIX = "Change its permissions, or name another place."
# How TensorFlow's own files say it.
_REASONS_OF_TF = [
    os.strerror(code)
    for code in (
        errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOENT,
        errno.ENOTDIR, errno.EISDIR, errno.EIO,
    )
]  # fmt: skip


class DirectoryError(ValueError):
    """A directory cannot be made, or this process cannot write in it."""


def expanded(path: str | os.PathLike[str]) -> Path:
    """Returns a path with the user's home for `~`; that of a user who is not there, as it is.

    `Path.expanduser` raises there, and a shell passes `~nobody/data` on as it is.

    Example:
      >>> from gradloop import files
      >>> str(files.expanded("~nobody-of-this-name/data"))
      '~nobody-of-this-name/data'
    """
    return Path(os.path.expanduser(path))


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


def explain(error: BaseException) -> str | None:
    """Returns a line about an error of a file: which one, why, and what to do.

    Returns:
      None if the error is not of a file: it may be a bug, which keeps its traceback.

    Example:
      >>> from gradloop import files
      >>> files.explain(PermissionError(13, "Permission denied", "x.npz"))
      'x.npz cannot be used: Permission denied. Change its permissions, or name another place.'
    """
    if isinstance(error, DirectoryError):
        return str(error)
    if type(error).__module__.startswith("tensorflow."):
        first = str(error).partition("\n")[0]
        return first if any(reason in first for reason in _REASONS_OF_TF) else None
    if not isinstance(error, OSError):
        return None
    if error.errno is None:  # Raised with a sentence by what knows more.
        return str(error)
    if error.filename is None and error.errno not in _OF_DISKS:
        return None
    name = str(error.filename2 or error.filename or "a file")  # the second: what it was to become
    fix = _FIXES.get(error.errno, _OTHER_FIX)
    return f"{name} cannot be used: {error.strerror}. {fix}"


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Has an error of the disk in the block name the file: that of a full one does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _OF_DISKS:
            error.filename = str(path)
        raise


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
    with naming(path), _temporary(path) as temporary:
        with open(temporary, mode.replace("w", "x"), **text_options) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    force_to_disk(path.parent, recursive=False)


def link_atomically(source: Path, path: Path) -> None:
    """Gives a file a second name, in one go too. Both are in one directory.

    Raises:
      OSError: If the file system has no hard links.
    """
    with _temporary(path) as temporary:
        os.link(source, temporary)
        os.replace(temporary, path)  # does nothing if both are one file already
    force_to_disk(path.parent, recursive=False)


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


def force_to_disk(path: Path, *, recursive: bool = True) -> None:
    """Returns when the power may fail: a file, or a folder with what it holds, is on the disk.

    Args:
      path: Of it.
      recursive: If False, of a folder the names alone: a power cut may forget a new one.
    """
    inner = path.iterdir() if recursive and path.is_dir() else ()
    for one in inner:
        force_to_disk(one)
    descriptor = os.open(path, os.O_RDONLY)
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


def parse_json(text: str) -> Any:
    """Returns what a JSON text holds; strict where `json.loads` takes the last of several keys.

    Raises:
      ValueError: If it is no JSON, has a key twice in one object, or is too deep for Python.

    Example:
      >>> from gradloop import files
      >>> files.parse_json('{"epochs": 3}')
      {'epochs': 3}
    """
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except RecursionError:
        raise ValueError("it has too many brackets within brackets") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = value
    return found
