"""The process that is killed: a program that tells how far it is, and may have a crash point.

    python -m benchmarks.chaos.victim --folder RUN --moments FD [--byte N] PROGRAM FLAGS...

Nothing of the program is changed but this: after each moment of its hooks it writes a line to a
pipe; and the process sends itself SIGKILL before an operation on files, or in the middle of the
bytes that it writes to those of the run.
"""

from __future__ import annotations

import argparse
import builtins
import io
import os
import runpy
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# What changes files or makes them durable. `Path` calls these, too.
_OPERATIONS = ("fsync", "replace", "rename", "link", "unlink", "remove", "mkdir", "truncate")
FILES = "files"  # the line that a program's end writes: how many operations and bytes


class CrashPoint:
    """Counts operations on files and bytes written to those in a folder, and ends the process.

    Args:
      folder: Of the run.
      at_operation: Number of the operation that is not done any more, from 0; None: none.
      at_byte: How many bytes are written before the end; None: all.
    """

    def __init__(
        self, folder: Path, *, at_operation: int | None = None, at_byte: int | None = None
    ) -> None:
        self.num_operations = self.num_bytes = 0
        self._folder = os.path.join(os.path.abspath(folder), "")
        self._at_operation, self._at_byte = at_operation, at_byte
        self._open = builtins.open

    def install(self) -> None:
        """Counts from now on."""
        for name in _OPERATIONS:
            setattr(os, name, self._counted(getattr(os, name)))
        builtins.open = io.open = self._open_counted

    def count_operation(self) -> None:
        """Counts one, or ends the process before it."""
        if self.num_operations == self._at_operation:
            _end_process()
        self.num_operations += 1

    def count_bytes(self, number: int) -> int:
        """Counts bytes that are about to be written; returns how many of them may be."""
        left = number if self._at_byte is None else self._at_byte - self.num_bytes
        self.num_bytes += number
        return min(number, left)

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def count(*args: Any, **kwargs: Any) -> Any:
            self.count_operation()
            return function(*args, **kwargs)

        return count

    def _open_counted(
        self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any
    ) -> Any:
        is_path = isinstance(file, str | os.PathLike)
        writes = is_path and set(mode) & set("wxa") and "+" not in mode
        if not writes or not os.path.abspath(file).startswith(self._folder):
            return self._open(file, mode, buffering, *rest, **options)
        self.count_operation()
        raw = _CountedFile(self, file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffered = io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        text = io.TextIOWrapper(buffered, *rest, **options)
        text.reconfigure(line_buffering=buffering == 1)
        return text


class _CountedFile(io.FileIO):
    def __init__(self, point: CrashPoint, file: Any, mode: str) -> None:
        super().__init__(file, mode)
        self._point = point

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        allowed = self._point.count_bytes(len(view))
        if allowed == len(view):
            return super().write(view)
        super().write(view[:allowed])
        _end_process()
        raise AssertionError("the process has ended")


def _end_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def tell_moments(descriptor: int) -> None:
    """Writes `<moment> <name of the evaluation, or ->` to a pipe after each moment of hooks."""
    from gradloop.engine.session import Session

    call = Session.call

    def call_and_tell(self: Session, moment: str) -> None:
        call(self, moment)
        os.write(descriptor, f"{moment} {self.info.eval_name or '-'}\n".encode())

    Session.call = call_and_tell  # type: ignore[method-assign]


def main(argv: Sequence[str]) -> None:
    """Runs a program as if it were called itself."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--moments", type=int, required=True)
    parser.add_argument("--operation", type=int)
    parser.add_argument("--byte", type=int)
    parser.add_argument("program", type=Path)
    parser.add_argument("flags", nargs=argparse.REMAINDER)
    arguments = parser.parse_args(argv)
    point = CrashPoint(arguments.folder, at_operation=arguments.operation, at_byte=arguments.byte)
    tell_moments(arguments.moments)
    point.install()
    sys.argv = sys.orig_argv = [str(arguments.program), *arguments.flags]
    try:
        runpy.run_path(str(arguments.program), run_name="__main__")
    finally:
        line = f"{FILES} {point.num_operations} {point.num_bytes}\n"
        os.write(arguments.moments, line.encode())


if __name__ == "__main__":
    main(sys.argv[1:])
