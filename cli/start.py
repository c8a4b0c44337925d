"""The first and the last line of a process: signals are caught before TensorFlow is imported."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from gradloop import signals

from .workers import launch

PROG = "gradloop" if Path(sys.argv[0]).stem == "gradloop" else "train.py"
_STDERR = 2


def start() -> int:
    """Runs what the flags ask for, as `main` does, and returns the exit code."""
    started_at = time.monotonic()
    with signals.caught(), signals.listening(signals.note):
        code = _launch_workers()
        if code is not None:
            return code
        # While TensorFlow is imported, stderr is somewhere else.
        stderr = os.dup(_STDERR)

        def end(number: int) -> None:
            # Not by an exception: what is half imported may swallow it. There is nothing to save.
            os.write(stderr, f"{PROG}: interrupted\n".encode())
            os._exit(128 + number)

        with signals.listening(end):
            from .main import main
            from .together import leave
        os.close(stderr)
        code = main(started_at=started_at)
        signals.ignore()
        if "TF_CONFIG" in os.environ:
            leave(code)
    return code


def _launch_workers() -> int | None:
    """Runs the command with several workers if it asks for them: see `launch`."""
    argv = sys.argv[1:]
    if not launch.is_asked_for(argv):
        return None
    # As it was started: `python train.py`, an installed `gradloop`, `python -c ...`.
    program = sys.orig_argv[1 : len(sys.orig_argv) - len(argv)]
    return launch.launch([sys.executable, *program, *argv], prog=PROG)
