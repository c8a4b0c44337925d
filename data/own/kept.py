"""What is worked out of files once and kept: outside their folder, until they change."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gradloop.files import force_to_disk
from gradloop.machine import cache_dir

from .errors import FileError, unreadable

# Another one where what is kept has another form.
_VERSION = 2


def keep(files: Iterable[Path], settings: Any, make: Callable[[Path], None]) -> Path:
    """Returns a folder with what `make` has worked out of these files, now or before.

    The key is the path, size and time of change of each file, with the settings: when one changes,
    it is made anew, and what was kept of the files as they were is removed.

    Args:
      files: What it is worked out of.
      settings: What else it depends on, as JSON can hold it.
      make: Writes into an empty folder. What it raises is passed on, and nothing is kept.
    """
    files = list(files)
    stats = [(str(file.resolve()), file.stat()) for file in files]
    of = _digest([_VERSION, settings, [name for name, _ in stats]])
    state = _digest([(stat.st_size, stat.st_mtime_ns) for _, stat in stats])
    folder = cache_dir() / "indices" / f"{of}-{state}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _make(folder, make)
    except OSError as error:
        if error.filename in map(str, files):
            raise unreadable(error.filename, error) from error
        raise FileError(
            f"{folder.parent}, where what is worked out of data is kept, cannot be written "
            f"({error.strerror or error}): make room, or set XDG_CACHE_HOME to another folder."
        ) from error
    for other in folder.parent.glob(f"{of}-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="unfinished-") as scratch:
        made = Path(scratch, "made")
        made.mkdir()
        make(made)
        force_to_disk(made)
        # Another process may have been faster: what it has made is the same.
        with contextlib.suppress(OSError):
            os.replace(made, folder)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:24]
