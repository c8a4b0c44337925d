"""One process a folder: a lock that dies with its holder, also when that is killed."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from .files import DirectoryError, json_text, make_directory

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = "lock"
_held: set[int] = set()


class LockedError(DirectoryError):
    """Another process uses the folder: the message names it."""


class NoLock(OSError):
    """The system or the file system has no such locks."""


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps other processes out of a folder while the block runs.

    The file `lock` in it says who uses it. What counts is not the file, but the kernel's lock on
    it, which ends with the process: what a killed one left is taken over.

    Args:
      directory: An existing folder. On a network file system, the lock works between machines if
        that file system has `flock`.

    Raises:
      LockedError: If another process holds it; nothing is changed then.
      NoLock: If there are no such locks here.
      DirectoryError: If its file cannot be opened.

    Example:
      >>> from gradloop import lock
      >>> with lock.locked(tmp_path):
      ...     [path.name for path in tmp_path.iterdir()]
      ['lock']
    """
    if fcntl is None:
        raise NoLock(f"{directory} is not locked: this system has no fcntl.")
    make_directory(directory)
    path = directory / LOCK_FILE
    file = _acquire(path)
    _held.add(file)
    try:
        yield
    finally:
        # The name goes first: whoever opens the file from now on makes a new one.
        with contextlib.suppress(OSError):
            path.unlink()
        _held.remove(file)
        os.close(file)


def is_held(directory: Path) -> bool:
    """Returns whether a process holds the lock of a folder, as far as can be told; changes nothing.

    Example:
      >>> from gradloop import lock
      >>> lock.is_held(tmp_path)
      False
    """
    try:
        file = os.open(directory / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        _lock(file, directory / LOCK_FILE)
    except LockedError:
        return True
    except (OSError, AttributeError):  # no such locks here
        return False
    finally:
        os.close(file)
    return False


def _acquire(path: Path) -> int:
    """Returns the descriptor of the locked file that has this name."""
    while True:
        file = _open(path)
        try:
            _lock(file, path)
            if _is_named(file, path):
                _write_holder(file)
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # its holder has removed it in the meantime


def _open(path: Path) -> int:
    try:
        # A link would make a file elsewhere.
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise DirectoryError(
            f"{path} cannot be opened, which keeps other processes out of this folder: "
            f"{error.strerror or error}. Remove it, or name another folder."
        ) from error


def _lock(file: int, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedError(
            f"{path.parent} is in use by {_describe_holder(file)}: wait until it has ended, end "
            "it, or name another folder."
        ) from None
    except OSError as error:
        raise NoLock(f"{path.parent} is not locked: {error.strerror or error}.") from error


def _is_named(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _write_holder(file: int) -> None:
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "started": time.strftime("%F %T")}
    with contextlib.suppress(OSError):  # A full disk: it is locked, but does not say by whom.
        os.ftruncate(file, 0)
        os.pwrite(file, (json_text(holder) + "\n").encode(), 0)


def _describe_holder(file: int) -> str:
    try:
        holder = json.loads(os.pread(file, 4096, 0))
        return "process {pid} on {host} since {started}".format(**holder)
    except (OSError, ValueError, KeyError, TypeError):  # It is about to write, or could not.
        return "another process"


def _close_in_child() -> None:
    """Leaves the lock to the process that holds it, not to those that it forks."""
    for file in _held:
        os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)
