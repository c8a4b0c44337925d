"""Log: lines on the screen and in a file."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from gradloop import signals
from gradloop.files import explain, make_directory

from .texts import wrapped

_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


class Log:
    """Shows lines on a stream and keeps them in a file without control characters.

    Args:
      path: The file, which is appended to; its directory is created. None: the stream alone.
      stream: Default: `sys.stdout` at the time of writing.

    Attributes:
      is_quiet: Whether lines without a stream of their own go to the file alone; results do not.
    """

    def __init__(self, path: str | os.PathLike[str] | None, stream: TextIO | None = None) -> None:
        self.path = Path(os.devnull)
        if path is not None:
            self.path = make_directory(Path(path).parent) / Path(path).name
        self.is_quiet = False
        self._stream = stream
        self._file: TextIO | None = None
        self._has_failed = False
        self._is_closed = path is None
        self._write("")  # the file is there from the beginning

    def line(self, text: str = "", *, stream: TextIO | None = None) -> None:
        """Writes a line to both. A progress bar on the same stream stays intact.

        Args:
          text: Without the newline at its end.
          stream: Default: the log's own.
        """
        if stream is not None or not self.is_quiet:
            _show(text, stream or self._stream or sys.stdout)
        self._write(_CONTROL.sub("", text) + "\n")

    def announce(self, text: str) -> None:
        """Writes a line to stderr and the file, from any thread, in place of a `^C`."""
        with tqdm.external_write_mode(file=sys.stderr):
            for stream in (sys.stdout, sys.stderr):
                stream.write(signals.cleared(stream))
                stream.flush()
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
        self._write(text + "\n")

    def result(self, text: str) -> None:
        """Writes a line that a quiet log shows, too."""
        self.line(text, stream=self._stream or sys.stdout)

    @property
    def bar_stream(self) -> TextIO | None:
        """Where a progress bar goes: None stands for `sys.stdout`."""
        return io.StringIO() if self.is_quiet else None

    def _write(self, text: str) -> None:
        """Writes to the file; warns of the first error, and tries again with the next line."""
        if self._is_closed:
            return
        try:
            self._file = self._file or self.path.open("a", encoding="utf-8", buffering=1)
            self._file.write(text)
        except OSError as error:
            self._release()
            if not self._has_failed:
                self._has_failed = True
                self._warn(explain(error) or str(error))

    def _warn(self, reason: str) -> None:
        self.line(f"warning: a file of the run: {reason}", stream=sys.stderr)

    def attempt(self, write: Callable[..., object], *args: Any) -> bool:
        """Calls what uses a file; returns whether it could. If not, a line on stderr says why."""
        try:
            write(*args)
        except Exception as error:
            reason = explain(error)
            if reason is None:
                raise
            self._warn(reason)
            return False
        return True

    def close(self) -> None:
        """Closes the file. A second call does nothing."""
        self._is_closed = True
        self._release()

    def _release(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # what could not be written is tried once more
                self._file.close()
            self._file = None

    def __enter__(self) -> Log:
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the file."""
        self.close()


def _show(text: str, stream: TextIO) -> None:
    try:
        tqdm.write(wrapped(text, stream), file=stream)
        stream.flush()
    except OSError:  # Nobody reads the pipe any more, or its disk is full: the run goes on.
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), stream.fileno())


@contextlib.contextmanager
def warnings_as_lines(log: Log) -> Iterator[None]:
    """Shows warnings for users as lines, without the place in the code."""
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, UserWarning):
            log.line(f"warning: {message}", stream=sys.stderr)
        else:
            before(message, category, *place, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before
