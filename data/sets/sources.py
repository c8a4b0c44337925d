"""Gets verified raw files and caches them.

In order: our cache, an intact Keras cache, Keras's download, the registries' own clients. Files
that people could not have meant to hand over (a truncated cache, an altered archive) are set aside
and the next source is tried; only a folder that a person named is left exactly as it is.
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
from gradloop.files import write_atomically

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
    """No verified data could be had, or a file that a person named is not what it should be."""


def cache_dir() -> Path:
    """Returns the folder for cached data: `$GRADLOOP_DATA`, else gradloop's in the user's cache."""
    named = os.environ.get("GRADLOOP_DATA")
    if named:
        return Path(named).expanduser()
    return machine.cache_dir()


def load(spec: RawDataset, data_dir: str | os.PathLike[str] | None = None) -> Arrays:
    """Returns the verified arrays of a data set, from the first source that has them.

    Args:
      spec: What to get.
      data_dir: A folder with the files, or one to download them into. Default: `cache_dir()`.

    Raises:
      DataError: If `data_dir` holds a file that is not the published one, or if every source
        failed; the message lists each with its reason.
    """
    named = None if data_dir is None else Path(data_dir).expanduser()
    if named is not None and named.exists() and not named.is_dir():
        raise DataError(f"data_dir: expected a folder, got the file {named}")
    if named is not None and present_files(spec.name, named):
        return _read_named(spec, named)
    folder = (named or cache_dir()) / spec.name
    # A cache that is whole needs no lock. Of one that is not, another process may be filling it.
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
    """Returns what `load` does as `(x_train, y_train), (x_test, y_test)`, as Keras does."""
    x_train, y_train, x_test, y_test = load(spec, data_dir)
    return (x_train, y_train), (x_test, y_test)


def _read(spec: RawDataset, folder: Path) -> Arrays | None:
    fetched = read_folder(spec.name, folder)
    return None if fetched is None else decode(spec, fetched)


def _read_cache(spec: RawDataset, folder: Path) -> Arrays | None:
    """Reads our own cache; bad files are set aside until it is whole or has nothing left."""
    while True:
        try:
            return _read(spec, folder)
        except BadFileError as error:
            if not _set_aside(error, folder):
                return None


def _read_named(spec: RawDataset, folder: Path) -> Arrays:
    """Reads a folder that a person named and that holds files; never changes it."""
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
            "Add them, or name a folder that holds none to have all four downloaded"
        )
    return arrays


def _fetch(spec: RawDataset, folder: Path) -> Arrays:
    """Tries each source in turn; saves what the first good one gave."""
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
            # What lies elsewhere (Keras's own cache) is not ours to rename.
            if Path(scratch) in error.path.parents:
                _set_aside(error, folder)
            raise


def _all_failed(spec: RawDataset, folder: Path, reasons: list[str]) -> str:
    by_hand = ", ".join(IDX_SHAPES)
    return "\n".join(
        [
            f"{spec.name}: no source could give the data:",
            f"  - cache {folder}: no complete, intact set of files",
            *reasons,
            f"To go on without them, put {by_hand} (each gzipped as .gz or not), or the "
            f"{spec.name}.npz of keras.datasets, into {folder}",
        ]
    )


def _set_aside(error: BadFileError, folder: Path) -> bool:
    """Moves a bad file to `<name>.bad-<n>` in our folder; returns whether it could be moved."""
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
    except OSError:  # Another file system, as a scratch folder often is.
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
        _say(f"{folder}: cannot be written, the data will be downloaded again: {error}")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the folder's lock: of processes that start together, one downloads.

    A folder that cannot be locked (read-only, or a network file system without locks) is used
    without: atomic renames alone keep two downloads from disturbing each other.
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
