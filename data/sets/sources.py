"""load: the verified arrays of a dataset, from the cache or the first source that has them.

The order is: our cache, then the sources of the dataset (Keras's cache, Keras's download, package
clients). Bad files in our cache or in a download are set aside, and the next source is tried. If
a person names a folder with files, nothing in it changes: a bad file there is an error.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from gradloop import machine
from gradloop.files import expanded, write_atomically

from .idx import (
    IDX_SHAPES,
    Arrays,
    BadFileError,
    RawDataset,
    Source,
    Split,
    decode,
    encode,
    present_files,
    read_folder,
)

try:
    import fcntl
except ImportError:  # Windows: two processes may download twice, and still both succeed.
    fcntl = None  # type: ignore[assignment]


class DataError(ValueError):
    """No source has the data, or a file that a person provides is not the published one."""


def cache_dir() -> Path:
    """Returns the folder for cached data: `$GRADLOOP_DATA`, else `machine.cache_dir()`."""
    named = os.environ.get("GRADLOOP_DATA")
    if named:
        return expanded(named)
    return machine.cache_dir()


def load(spec: RawDataset, data_dir: str | os.PathLike[str] | None = None) -> Arrays:
    """Returns the verified arrays of a dataset, from the first source that has them.

    Args:
      spec: The dataset.
      data_dir: A folder that holds the files, or one to download them into. Default:
        `cache_dir()`.

    Raises:
      DataError: If a file in `data_dir` is not the published one, or all sources fail; the message
        lists each source with its reason.
    """
    named = None if data_dir is None else expanded(data_dir)
    if named is not None and named.exists() and not named.is_dir():
        raise DataError(f"data_dir: expected a folder, got the file {named}")
    if named is not None and present_files(spec.name, named):
        return _read_named(spec, named)
    folder = (named or cache_dir()) / spec.name
    # A complete cache needs no lock. Another process may be filling an incomplete one.
    with contextlib.suppress(BadFileError):
        arrays = _read(spec, folder)
        if arrays is not None:
            return arrays
    with _locked(folder):
        if named is not None and present_files(spec.name, folder):
            return _read_named(spec, folder)
        return _read_cache(spec, folder) or _fetch(spec, folder)


def load_splits(
    spec: RawDataset, data_dir: str | os.PathLike[str] | None = None
) -> tuple[Split, Split]:
    """Returns the arrays of `load` as `(x_train, y_train), (x_test, y_test)`, like Keras."""
    x_train, y_train, x_test, y_test = load(spec, data_dir)
    return (x_train, y_train), (x_test, y_test)


def _read(spec: RawDataset, folder: Path) -> Arrays | None:
    fetched = read_folder(spec.name, folder)
    return None if fetched is None else decode(spec, fetched)


def _read_cache(spec: RawDataset, folder: Path) -> Arrays | None:
    """Reads our cache, and sets bad files aside until it is intact or has nothing left."""
    while True:
        try:
            return _read(spec, folder)
        except BadFileError as error:
            if not _set_aside(error, folder):
                return None


def _read_named(spec: RawDataset, folder: Path) -> Arrays:
    """Reads a folder that a person names and that holds files; never changes it."""
    try:
        arrays = _read(spec, folder)
    except BadFileError as error:
        raise DataError(
            f"{error}. Replace or remove that file, or name a folder that holds no files"
        ) from error
    if arrays is None:
        missing = sorted(IDX_SHAPES.keys() - present_files(spec.name, folder).keys())
        raise DataError(
            f"{folder}: holds only some of the four files; missing: {', '.join(missing)}. "
            "Add them, or name a folder that holds none, to download all four"
        )
    return arrays


def _fetch(spec: RawDataset, folder: Path) -> Arrays:
    """Tries each source in turn, and saves the files of the first good one."""
    reasons = []
    for source in spec.sources:
        _say(f"{spec.name}: trying {source.title} ...")
        try:
            arrays = _fetch_from(spec, source, folder)
        except (OSError, BadFileError) as error:
            reason = error.reason if isinstance(error, BadFileError) else str(error)
            reasons.append(f"  - {source.title}: {reason or type(error).__name__}")
            _say(f"{spec.name}: {source.title} failed: {reason}")
            continue
        _save(arrays, folder)
        return arrays
    raise DataError(_all_failed(spec, folder, reasons))


def _fetch_from(spec: RawDataset, source: Source, folder: Path) -> Arrays:
    with tempfile.TemporaryDirectory(prefix="gradloop-", ignore_cleanup_errors=True) as scratch:
        try:
            return decode(spec, source.fetch(Path(scratch)))
        except BadFileError as error:
            # Files elsewhere (Keras's own cache) are not ours to rename.
            if Path(scratch) in error.path.parents:
                _set_aside(error, folder)
            raise


def _all_failed(spec: RawDataset, folder: Path, reasons: list[str]) -> str:
    by_hand = ", ".join(IDX_SHAPES)
    return "\n".join(
        [
            f"{spec.name}: no source has the data:",
            f"  - cache {folder}: no complete, intact set of files",
            *reasons,
            f"To do without them, put {by_hand} (each gzipped as .gz or not), or the "
            f"{spec.name}.npz of keras.datasets, into {folder}",
        ]
    )


def _set_aside(error: BadFileError, folder: Path) -> bool:
    """Moves a bad file to `<name>.bad-<n>` in our folder; returns whether that worked."""
    number = 1
    while (target := folder / f"{error.path.name}.bad-{number}").exists():
        number += 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _move(error.path, target)
    except OSError as failure:
        _say(f"{error}; it cannot be set aside: {failure}")
        return False
    _say(f"{error}; set aside as {target}")
    return True


def _move(source: Path, target: Path) -> None:
    try:
        os.replace(source, target)
    except OSError:  # The scratch folder is often on another file system.
        content = source.read_bytes()
        write_atomically(target, functools.partial(_write, content), mode="wb")
        source.unlink()


def _save(arrays: Arrays, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in zip(IDX_SHAPES, arrays, strict=True):
            content = encode(array)
            write_atomically(folder / name, functools.partial(_write, content), mode="wb")
    except OSError as error:
        _say(f"{folder}: cannot be written; the next run downloads the data again: {error}")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, so that only one of several processes downloads.

    A folder that cannot be locked (read-only, or on a network file system without locks) is used
    without a lock: atomic renames still keep two downloads from disturbing each other.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((folder / ".lock").open("a"))
            if fcntl is not None:
                _lock(lock.fileno(), folder)
        except OSError:
            pass
        yield


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _say(f"{folder}: waiting for another process that is filling it ...")
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _write(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
