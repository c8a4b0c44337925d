"""SIGINT and SIGTERM: the first one asks for an end, the second one ends the process at once.

Whoever listens is told of the first one; by default it raises `Interruption` in the main thread.
Python calls its handlers between two operations of the main thread, and so not within a long call
of TensorFlow's. The second signal must not wait for that: a thread reads the numbers from the file
descriptor to which Python writes them when a signal arrives.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TextIO

# Within this time it is one signal: `timeout`, terminals and launchers send it to the process and
# to its group.
SAME_SECS = 0.25
_FLUSH_SECS = 1.0  # at most, where a stream does not take what is written
_STDERR = 2
_END = 0  # no signal has this number
Listener = Callable[[int], object]


class Interruption(KeyboardInterrupt):
    """A signal that asked for an end came when nobody listened.

    Attributes:
      signal_number: Its number.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


@contextlib.contextmanager
def caught() -> Iterator[None]:
    """Catches both signals while the block runs; within another such block it does nothing.

    A signal that is ignored stays ignored. Handlers and the wakeup file descriptor of before are
    put back in the end.

    Raises:
      ValueError: If this is not the main thread, the only one that may handle signals.

    Example:
      >>> from gradloop import signals
      >>> with signals.caught():
      ...     signals.received_at() is None
      True
    """
    global _catcher  # noqa: PLW0603 - signals are of the process, too
    if _catcher is not None:
        yield
        return
    _catcher = _Catcher()
    try:
        yield
    finally:
        catcher, _catcher = _catcher, None
        catcher.release()


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Has the first signal told to `listener` and to nobody else while the block runs.

    Catches the signals if that is not done already. One that came before is told at once.

    Args:
      listener: Called with the signal's number, in the main thread, between any two operations: it
        may set attributes, or raise.

    Raises:
      ValueError: As in `caught`.
    """
    with caught():
        catcher = _catcher
        assert catcher is not None, "signals are caught"
        entry = object()
        catcher.listeners[entry] = listener
        try:
            if catcher.first is not None:
                listener(catcher.first[0])
            yield
        finally:
            del catcher.listeners[entry]


@contextlib.contextmanager
def released() -> Iterator[None]:
    """Lets both signals end the process at once while the block runs, and catches them after it.

    For a call of a library that holds Python's lock, so that no handler can run, or that takes the
    signals for itself: TensorFlow does both when several workers come together.
    """
    numbers = [] if _catcher is None else list(_catcher.before)
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in numbers:
            assert _catcher is not None, "it is the one of before"
            signal.signal(number, _catcher._tell)


@contextlib.contextmanager
def ending_with(call: Callable[[], object]) -> Iterator[None]:
    """Has a second signal call this first, while the block runs: the process ends after it.

    Args:
      call: Called in a thread of its own. What it raises does not keep the process alive.
    """
    _last_calls.append(call)
    try:
        yield
    finally:
        _last_calls.remove(call)


@contextlib.contextmanager
def heard_by(call: Listener) -> Iterator[None]:
    """Has the first signal call this at once, also within a long call, while the block runs.

    Args:
      call: Called with the signal's number, in a thread of its own. What it raises is lost.
    """
    _first_calls.append(call)
    try:
        yield
    finally:
        _first_calls.remove(call)


def cleared(stream: TextIO) -> str:
    """Returns what removes the `^C` that a terminal shows on the current line; "" for a file."""
    return "\r\x1b[K" if stream.isatty() else ""


def interrupt(number: int) -> None:
    """Listens by raising `Interruption`, as somebody does where nobody else listens."""
    raise Interruption(number)


def note(number: int) -> None:
    """Listens by doing nothing: `received_at` and `check` know of the signal later."""


def received_at() -> float | None:
    """Returns the `time.monotonic()` of the first signal since they are caught; None: none came."""
    first = _catcher.first if _catcher is not None else None
    return None if first is None else first[1]


def number() -> int | None:
    """Returns the number of the first signal, likewise."""
    first = _catcher.first if _catcher is not None else None
    return None if first is None else first[0]


def check() -> None:
    """Raises `Interruption` if a signal has been received."""
    received = number()
    if received is not None:
        raise Interruption(received)


def ignore() -> None:
    """Ignores both from now on, also when `caught` has ended: the process is about to end."""
    assert _catcher is not None, "signals are caught"
    for caught_number in _catcher.before:
        signal.signal(caught_number, signal.SIG_IGN)
        _catcher.before[caught_number] = signal.SIG_IGN


class _Catcher:
    """What catches the signals from its creation to `release`.

    Attributes:
      listeners: By a key of their own. The last one is told.
      first: Number of the first signal, and when it came.
      before: Signal number to its handler of before.
    """

    def __init__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise ValueError(
                "signals can be caught in the main thread alone: train there, or leave "
                "StopOnSignal out of the hooks."
            )
        self.listeners: dict[object, Listener] = {None: interrupt}
        self.first: tuple[int, float] | None = None
        self._has_told = False
        self._read_end, self._write_end = socket.socketpair()
        self._write_end.setblocking(False)
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._thread.start()
        self._wakeup_before = signal.set_wakeup_fd(
            self._write_end.fileno(), warn_on_full_buffer=False
        )
        self.before: dict[int, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:
                self.before[number] = signal.signal(number, self._tell)

    def release(self) -> None:
        """Puts back what was there before, and ends the thread."""
        self.put_back()
        self._write_end.send(bytes([_END]))
        self._thread.join()
        self._read_end.close()
        self._write_end.close()

    def put_back(self) -> None:
        """Puts back the handlers and the wakeup file descriptor of before."""
        self.listeners[self] = note  # nothing is raised in between
        for number, handler in self.before.items():
            # None: the handler was not set from Python and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._wakeup_before)

    def _tell(self, number: int, frame: FrameType | None) -> None:
        """Tells the last listener of the first signal. Context: the main thread."""
        self._note(number)
        if not self._has_told:
            self._has_told = True
            list(self.listeners.values())[-1](number)

    def _note(self, number: int) -> None:
        self.first = self.first or (number, time.monotonic())

    def _watch(self) -> None:
        """Reads the numbers of signals as they come. Context: a thread of its own."""
        seen_at: float | None = None  # not `first`, which the main thread may have noted before
        while True:
            for number in self._read_end.recv(64):
                if number == _END:
                    return
                if number not in self.before:
                    self._hand_on(number)
                elif seen_at is None:
                    seen_at = time.monotonic()
                    self._note(number)
                    # In threads of their own: a second signal does not wait for them.
                    for call in _first_calls:
                        threading.Thread(target=_call, args=[call, number], daemon=True).start()
                elif time.monotonic() - seen_at > SAME_SECS:
                    _end_process(number)

    def _hand_on(self, number: int) -> None:
        """Writes another signal where an event loop reads it."""
        if self._wakeup_before >= 0:
            with contextlib.suppress(OSError):
                os.write(self._wakeup_before, bytes([number]))


def _call(call: Listener, number: int) -> None:
    with contextlib.suppress(Exception):
        call(number)


def _end_process(number: int) -> None:
    for call in _last_calls:
        with contextlib.suppress(Exception):
            call()
    # A thread of its own: the main one may hold the lock of a stream.
    (flush := threading.Thread(target=_flush, daemon=True)).start()
    flush.join(_FLUSH_SECS)
    name = signal.Signals(number).name
    start = "\r\x1b[K" if os.isatty(_STDERR) else "\n"
    os.write(_STDERR, f"{start}gradloop: ended at once by a second signal, {name}\n".encode())
    os._exit(128 + number)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _forget_in_child() -> None:
    """Leaves the signals of a forked process alone: a terminal sends them to it, too."""
    global _catcher  # noqa: PLW0603
    if _catcher is not None:
        _catcher.put_back()
        _catcher = None


_first_calls: list[Listener] = []
_last_calls: list[Callable[[], object]] = []
_catcher: _Catcher | None = None
os.register_at_fork(after_in_child=_forget_in_child)
