"""Ends a process that does not come on, whatever its main thread is stuck in."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator

_STDERR = 2
_MAX_LOOK_SECS = 0.25
_LOOKS_PER_LIMIT = 8
_C_SECS = 0.5  # between what the C library does
_SIGEV_THREAD = 2


@contextlib.contextmanager
def within(secs: float, line: str, exit_code: int) -> Iterator[None]:
    """Ends the process as `end_process` does if the block takes longer than `secs`.

    Example:
      >>> from gradloop import deadline
      >>> with deadline.within(60, "the sum takes too long", 70):
      ...     1 + 1
      2
    """
    ended = threading.Event()

    def watch() -> None:
        if passes(secs, ended):
            end_process(line, exit_code)

    thread = threading.Thread(target=watch, name="deadline", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


@contextlib.contextmanager
def within_c(secs: float, line: str, exit_code: int) -> Iterator[None]:
    """Does what `within` does, also while a library holds Python's lock, so that no thread runs.

    Timers of the C library write the line and end the process, and `faulthandler` writes the
    stacks. Where there are no such timers (not on Linux), there is no line, and the exit code is 1.
    """
    has_timers = sys.platform == "linux"
    with contextlib.ExitStack() as stack:
        if has_timers:
            text = ctypes.create_string_buffer(line.replace("%", "%%").encode())
            stack.enter_context(_timer(secs, "warnx", ctypes.addressof(text)))
            stack.enter_context(_timer(secs + 2 * _C_SECS, "_exit", exit_code))
        faulthandler.dump_traceback_later(secs + _C_SECS, exit=not has_timers)
        stack.callback(faulthandler.cancel_dump_traceback_later)
        yield


class _Event(ctypes.Structure):
    """`struct sigevent` with SIGEV_THREAD: a new thread calls a function with a value."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("number", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("padding", ctypes.c_char * 32),
    )


@contextlib.contextmanager
def _timer(secs: float, function: str, value: int) -> Iterator[None]:
    """Has a function of the C library called after a time, unless the block ends before."""
    c = ctypes.CDLL(None, use_errno=True)
    address = ctypes.cast(getattr(c, function), ctypes.c_void_p).value
    event = _Event(value=value, notify=_SIGEV_THREAD, function=address)
    timer = ctypes.c_void_p()
    if c.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)):
        raise OSError(ctypes.get_errno(), "timer_create")
    whole, rest = divmod(secs, 1)
    spec = (ctypes.c_long * 4)(0, 0, int(whole), int(rest * 1e9))  # struct itimerspec: once
    c.timer_settime(timer, 0, ctypes.byref(spec), None)
    try:
        yield
    finally:
        c.timer_delete(timer)


def passes(secs: float, ended: threading.Event) -> bool:
    """Waits until an event, or for a time; returns whether the time has passed.

    Looks are counted and not seconds: a process that was suspended has lost no time.
    """
    secs_between = look_secs(secs)
    num_looks = 0
    while not ended.wait(secs_between):
        num_looks += 1
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
