"""Log: lines on the screen and in a file."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from gradloop.files import make_directory

_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


class Log:
    """Shows lines on a stream and keeps them in a file without control characters.

    Args:
      path: The file, which is appended to; its directory is created.
      stream: Default: `sys.stdout` at the time of writing.
    """

    def __init__(self, path: str | os.PathLike[str], stream: TextIO | None = None) -> None:
        self.path = make_directory(Path(path).parent) / Path(path).name
        self._stream = stream
        self._file = self.path.open("a", encoding="utf-8", buffering=1)

    def line(self, text: str = "", *, stream: TextIO | None = None) -> None:
        """Writes a line to both. A progress bar on the same stream stays intact.

        Args:
          text: Without the newline at its end.
          stream: Default: the log's own.
        """
        stream = stream or self._stream or sys.stdout
        tqdm.write(text, file=stream)
        stream.flush()
        self._file.write(_CONTROL.sub("", text) + "\n")

    def close(self) -> None:
        """Closes the file. A second call does nothing."""
        self._file.close()

    def __enter__(self) -> Log:
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the file."""
        self.close()
