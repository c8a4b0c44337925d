"""The first and the last line of a process: signals are caught before TensorFlow is imported."""

from __future__ import annotations

import dataclasses
import os
import sys
import time

from gradloop import signals
from gradloop.engine.options import ConfigError
from gradloop.files import explain
from gradloop.usage import EXIT_USAGE

from . import completion
from .config import FOLDER_MODES
from .flags import make_parser
from .reading import DESCRIPTION, PROG, Settings, read_config
from .workers import launch

_STDERR = 2


def start() -> int:
    """Runs what the flags ask for, as `main` does, and returns the exit code.

    What needs no TensorFlow is done without it: `--help`, and the refusal of wrong settings.
    """
    started_at = time.monotonic()
    if completion.is_asked_for(os.environ):
        return completion.complete(make_parser(prog=PROG, description=DESCRIPTION))
    with signals.caught(), signals.listening(signals.note):
        try:
            settings = read_config(sys.argv[1:])
        except (ConfigError, OSError) as error:
            line = explain(error) or str(error)
            print(f"{PROG}: error: {line}", file=sys.stderr)
            return EXIT_USAGE
        if settings.config.mode in FOLDER_MODES:
            from . import folder_modes  # brings NumPy

            return folder_modes.run(settings.config)
        if settings.config.mode == "sweep":
            from .sweeps import running

            return running.run(settings, _program())
        if settings.config.num_workers is not None:
            return _launch_workers(settings)
        # While TensorFlow is imported, stderr is somewhere else.
        stderr = os.dup(_STDERR)

        def end(number: int) -> None:
            # Not by an exception: what is half imported may swallow it. There is nothing to save.
            start = "\r\x1b[K" if os.isatty(stderr) else ""  # in place of what it shows of Ctrl-C
            os.write(stderr, f"{start}{PROG}: interrupted\n".encode())
            os._exit(128 + number)

        with signals.listening(end):
            from .main import main
            from .together import leave
        os.close(stderr)
        code = main(settings=settings, started_at=started_at)
        signals.ignore()
        if "TF_CONFIG" in os.environ:
            leave(code)
    return code


def _launch_workers(settings: Settings) -> int:
    """Runs the command with several workers: see `launch`."""
    command = [*_program(), *sys.argv[1:]]
    return launch.launch(command, dataclasses.asdict(settings.config), prog=PROG)


def _program() -> list[str]:
    """Returns what this process was started as: `python train.py`, `gradloop`, `python -c ...`."""
    num_arguments = len(sys.argv) - 1
    return [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - num_arguments]]
