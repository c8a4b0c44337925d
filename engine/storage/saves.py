"""Saves: the checkpoints of a run as it writes them, at once or on a thread of its own."""

from __future__ import annotations

import contextlib
import functools
import shutil
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from gradloop.files import DirectoryError

from .checkpoint_folder import BEST, CheckpointFolder
from .snapshot import Buffers, NonFiniteError, Snapshot

_MIB = 1 << 20


class Saves:
    """Writes one snapshot after another, keeps the newest, and says what could not be written.

    Args:
      folder: Where they go.
      max_to_keep: How many of the newest are kept.
      asynchronous: Whether `start` only copies the values, and a thread writes them.
      is_fatal: Whether an error of I/O is raised; else it is a warning.

    Attributes:
      secs: How long the last save took; None before the first.
    """

    def __init__(
        self, folder: CheckpointFolder, *, max_to_keep: int, asynchronous: bool, is_fatal: bool
    ) -> None:
        self.folder = folder
        self.secs: float | None = None
        self._max_to_keep = max_to_keep
        self._is_fatal = is_fatal
        self._thread = ThreadPoolExecutor(1) if asynchronous else None
        self._buffers: Buffers = {}
        self._pending: tuple[Snapshot, Future[None]] | None = None
        self._warned = ""

    def start(self, snapshot: Snapshot, *, is_regular: bool, is_best: bool) -> None:
        """Begins a save. `settle` must have been called since the last one, and must follow.

        Args:
          snapshot: Of now.
          is_regular: Whether it becomes the newest checkpoint.
          is_best: Whether it becomes `best.npz`.
        """
        assert self._pending is None
        started = time.monotonic()
        if self._thread is not None:
            snapshot = snapshot.copied(self._buffers)
        write = functools.partial(self._write, snapshot, is_regular, is_best, started)
        future = _called(write) if self._thread is None else self._thread.submit(write)
        self._pending = snapshot, future

    def settle(self, *, wait: bool) -> bool:
        """Ends a save that was begun; returns False if it failed.

        Args:
          wait: Whether to wait for the thread; else a save in progress is left alone.

        Raises:
          OSError: If it failed, and that is fatal.
        """
        if self._pending is None or not (wait or self._pending[1].done()):
            return True
        (snapshot, future), self._pending = self._pending, None
        try:
            future.result()
        except NonFiniteError as error:
            step = snapshot.progress.num_steps_completed
            self._warn(error, f"Step {step} is not saved: {error}.")
        except (OSError, DirectoryError) as error:
            message = self._describe(snapshot, error)
            if self._is_fatal:
                raise OSError(f"{message} Make room, or train with on_error='continue'.") from error
            self._warn(error, f"{message} Training goes on, and the next save tries again.")
        else:
            self._warned = ""
            return True
        return False

    def close(self) -> None:
        """Ends the thread, and gives the memory of the copies back."""
        if self._thread is not None:
            self._thread.shutdown()
        self._buffers = {}

    def _write(self, snapshot: Snapshot, is_regular: bool, is_best: bool, started: float) -> None:
        path = self.folder.write(snapshot) if is_regular else None
        if is_best and path is not None:
            self.folder.name_best(path)
        elif is_best:
            self.folder.write(snapshot, BEST)
        self.secs = time.monotonic() - started
        if is_regular:
            self._retain()

    def _retain(self) -> None:
        try:
            self.folder.retain(self._max_to_keep)
        except OSError as error:  # What was saved is whole, and the next save tries again.
            warnings.warn(
                f"cannot remove old checkpoints in {self.folder.directory}: {error}.", stacklevel=2
            )

    def _warn(self, error: Exception, message: str) -> None:
        """Warns once for each row of saves that fail alike."""
        kind = f"{type(error).__name__} {getattr(error, 'errno', '')}"
        if self._warned != kind:
            self._warned = kind
            warnings.warn(f"{message} {self.folder.what_stays()}", stacklevel=6)

    def _describe(self, snapshot: Snapshot, error: Exception) -> str:
        directory = self.folder.directory
        room = f"it takes {snapshot.num_bytes / _MIB:.1f} MiB"
        with contextlib.suppress(OSError):
            room += f", and {shutil.disk_usage(directory).free / _MIB:.1f} MiB are free"
        reason = (isinstance(error, OSError) and error.strerror) or error
        step = snapshot.progress.num_steps_completed
        return f"Cannot save step {step} in {directory}: {reason}; {room}."


def _called(write: Callable[[], None]) -> Future[None]:
    future: Future[None] = Future()
    try:
        write()
    except Exception as error:
        future.set_exception(error)
    else:
        future.set_result(None)
    return future
