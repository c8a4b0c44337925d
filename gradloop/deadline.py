"""Ends a process that does not come on, whatever its main thread is stuck in."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import threading
from collections.abc import Callable, Iterator

_STDERR = 2
_MAX_LOOK_SECS = 0.25
_LOOKS_PER_LIMIT = 8
_STOP_SECS = 1.0


@contextlib.contextmanager
def within(
    secs: float, line: str, exit_code: int, *, stop: Callable[[], int | None] = lambda: None
) -> Iterator[None]:
    """Ends the process as `end_process` does if the block takes longer than `secs`.

    Args:
      secs: The limit, in seconds.
      line: What is said then.
      exit_code: The process's.
      stop: Returns an exit code if the process is to end now, without a word; None: not yet.

    Example:
      >>> from gradloop import deadline
      >>> with deadline.within(60, "the sum takes too long", 70):
      ...     1 + 1
      2
    """
    ended = threading.Event()

    def watch() -> None:
        if passes(secs, ended, stop):
            end_process(line, exit_code)

    thread = threading.Thread(target=watch, name="deadline", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


def passes(
    secs: float, ended: threading.Event, stop: Callable[[], int | None] = lambda: None
) -> bool:
    """Waits until an event, or for a time; returns whether the time has passed.

    Looks are counted and not seconds: a process that was suspended has lost no time.
    """
    secs_between = look_secs(secs)
    num_looks = 0
    while not ended.wait(secs_between):
        num_looks += 1
        code = stop()
        if code is not None and not ended.wait(_STOP_SECS):  # the main thread comes first
            os._exit(code)
        if num_looks * secs_between >= secs:
            return True
    return False


def look_secs(secs: float) -> float:
    """Returns how often to look whether a limit of so many seconds is kept."""
    return min(secs / _LOOKS_PER_LIMIT, _MAX_LOOK_SECS)


def end_process(line: str, exit_code: int) -> None:
    """Writes a line and the stacks of all threads to stderr, and ends the process at once.

    Context: any thread. Nothing else runs any more, no `finally` and no destructor either.
    """
    os.write(_STDERR, f"gradloop: {line} All threads:\n".encode())
    faulthandler.dump_traceback(_STDERR, all_threads=True)
    os._exit(exit_code)
