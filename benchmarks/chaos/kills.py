"""When and how a run is killed, and the process that this is done to."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from benchmarks import ROOT

from .victim import FILES

KINDS = (
    "start-up", "step", "evaluation", "byte of a file", "operation on a file", "SIGTERM",
    "SIGSTOP, SIGKILL",
)  # fmt: skip
FINAL = "final evaluation"
MAX_RUN_SECS = 600.0
_MAX_EXECUTIONS = 4  # after the first one of a process, before it is killed
_MAX_DELAY_SECS = 0.2
_STOPPED_SECS = 0.3
EXIT_SIGTERM = 128 + signal.SIGTERM


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a run that is not killed tells: where there is something to hit.

    Attributes:
      startup_secs: From the start of the process to the beginning of training.
      num_operations: On files, an epoch.
      num_bytes: Written to the files of the run, an epoch.
    """

    startup_secs: float
    num_operations: int
    num_bytes: int


@dataclasses.dataclass
class Kill:
    """One kill.

    Attributes:
      kind: One of `KINDS`, or `FINAL`.
      where: In words.
      moment: After how many of which moment it comes; None: another condition.
      delay_secs: After that, or after the start of the process.
      flags: Of the victim, for a crash point.
    """

    kind: str
    where: str
    moment: tuple[str, int] | None = None
    delay_secs: float = 0.0
    flags: Sequence[str] = ()


def plan(num_kills: int, measured: Measured, rng: random.Random) -> Iterator[Kill]:
    """Yields kills: each kind about as often, in random order; the last one after training.

    Args:
      num_kills: How many.
      measured: Of the run that is not killed.
      rng: Decides.
    """
    kinds = [kind for _ in range(num_kills) for kind in rng.sample(KINDS, len(KINDS))]
    for kind in kinds[: num_kills - 1]:
        yield _draw(kind, measured, rng)
    yield _draw(FINAL, measured, rng)


def _draw(kind: str, measured: Measured, rng: random.Random) -> Kill:
    if kind == "start-up":
        secs = rng.uniform(0, measured.startup_secs)
        return Kill(kind, f"after {secs:.2f} s", delay_secs=secs)
    if kind in ("byte of a file", "operation on a file"):
        is_byte = kind.startswith("byte")
        number = rng.randrange(measured.num_bytes if is_byte else measured.num_operations)
        flag = "--byte" if is_byte else "--operation"
        return Kill(kind, f"number {number:,}", flags=(flag, str(number)))
    in_evaluation = kind == "evaluation" or (kind in ("SIGTERM",) and rng.random() < 0.3)
    moment = "on_execution_end -", rng.randint(1, _MAX_EXECUTIONS)
    if kind == FINAL or in_evaluation:
        moment = "on_eval_begin -" if kind == FINAL else "on_eval_begin val", 1
    secs = rng.uniform(0, _MAX_DELAY_SECS)
    return Kill(kind, f"{secs:.3f} s after {moment[0]}", moment, secs)


@dataclasses.dataclass
class Outcome:
    """How a process ended.

    Attributes:
      exit_code: Of the process, negative for a signal.
      is_killed: Whether it was killed, before its own end.
      secs: From the signal to its end.
      moments: What it told: the line, and the seconds since its start.
    """

    exit_code: int
    is_killed: bool
    secs: float = 0.0
    moments: list[tuple[str, float]] = dataclasses.field(default_factory=list)


class Runner:
    """Runs one command line, as often as it must.

    Args:
      program: The script.
      flags: Of it; the folder of the run is added.
      folder: Of the run.
      output: Where the screens of all its processes go.
    """

    def __init__(self, program: Path, flags: Sequence[str], folder: Path, output: Path) -> None:
        self.folder, self.output = folder, output
        self._command = [str(program), *flags, "--run_dir", str(folder)]

    def run(self, kill: Kill | None = None) -> Outcome:
        """Starts the program; kills it, or waits for its end."""
        read_end, write_end = os.pipe()
        flags = ["--folder", str(self.folder), "--moments", str(write_end)]
        flags += kill.flags if kill is not None else ()
        started_at = time.monotonic()
        with self.output.open("ab") as screen, open(read_end, "rb") as pipe:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.chaos.victim", *flags, *self._command],
                stdout=screen, stderr=screen, cwd=ROOT, pass_fds=[write_end],
                env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            )  # fmt: skip
            os.close(write_end)
            try:
                return self._follow(process, pipe, kill, started_at)
            finally:
                process.kill()
                process.wait()

    def _follow(
        self, process: subprocess.Popen[bytes], pipe: IO[bytes], kill: Kill | None, began: float
    ) -> Outcome:
        if kill is not None and kill.kind == "start-up":
            return _kill(process, kill)
        moments: list[tuple[str, float]] = []
        num_seen = 0
        for line in pipe:
            moments.append((line.decode().strip(), time.monotonic() - began))
            if kill is not None and kill.moment is not None:
                num_seen += moments[-1][0] == kill.moment[0]
                if num_seen == kill.moment[1]:
                    return _kill(process, kill)
        exit_code = process.wait(MAX_RUN_SECS)
        is_killed = kill is not None and exit_code == -signal.SIGKILL
        return Outcome(exit_code, is_killed, moments=moments)


def _kill(process: subprocess.Popen[bytes], kill: Kill) -> Outcome:
    time.sleep(kill.delay_secs)
    if process.poll() is not None:
        return Outcome(process.returncode, is_killed=False)
    began = time.monotonic()
    if kill.kind == "SIGSTOP, SIGKILL":
        process.send_signal(signal.SIGSTOP)
        time.sleep(_STOPPED_SECS)
    is_asked = kill.kind == "SIGTERM"
    process.send_signal(signal.SIGTERM if is_asked else signal.SIGKILL)
    exit_code = process.wait(MAX_RUN_SECS)
    # A run that had ended just before the signal is not killed by it.
    is_killed = exit_code == (EXIT_SIGTERM if is_asked else -signal.SIGKILL)
    return Outcome(exit_code, is_killed, time.monotonic() - began)


def measure(outcome: Outcome) -> Measured:
    """Returns what a run tells that was not killed.

    Raises:
      RuntimeError: If it has not told it.
    """
    secs = [at for line, at in outcome.moments if line == "on_train_begin -"]
    counts = [line.split()[1:] for line, _ in outcome.moments if line.startswith(FILES)]
    num_epochs = sum(line == "on_epoch_end -" for line, _ in outcome.moments)
    if not secs or not counts or not num_epochs:
        raise RuntimeError("the run that is not killed has not told that it trained, and ended")
    num_operations, num_bytes = (int(count) // num_epochs for count in counts[0])
    return Measured(secs[0], max(1, num_operations), max(1, num_bytes))
