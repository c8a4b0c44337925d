"""The harness's end of a process that hosts one arm; `worker` is the other end."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.race.workloads import Task

_STOP_SECS = 5.0


class WorkerError(OSError):
    """A worker answered with an error, or not at all.

    Args:
      reason: One line.
      status: The status that the arm gets.
      details: A traceback.
    """

    def __init__(self, reason: str, status: str = "failed", details: str = "") -> None:
        super().__init__(reason)
        self.status = status
        self.details = details


class Worker:
    """A process that hosts one arm, and the two pipes to it.

    Args:
      arm: Its name.
      python: Interpreter to start.
      task: What the arm does.
      log: File for what the arm prints.
      variables: Environment variables besides those of `environment`.

    Attributes:
      process: The process, which is started and has its task.

    Raises:
      WorkerError: If the interpreter cannot be started.
    """

    def __init__(
        self,
        arm: str,
        python: str,
        task: Task,
        log: Path,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._log = log
        self._buffer = b""
        with log.open("wb") as stderr:
            try:
                self.process = subprocess.Popen(
                    [python, "-m", "benchmarks.race.worker", "--arm", arm],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    cwd=ROOT,
                    env=environment(task) | dict(variables or {}),
                    bufsize=0,
                    # A group of its own: Ctrl-C reaches the harness, which ends the whole group.
                    start_new_session=True,
                )
            except OSError as error:
                raise WorkerError(f"cannot start {python}: {error.strerror}") from error
        self._send(task.to_dict())

    def ask(self, timeout_secs: float, **command: Any) -> dict[str, Any]:
        """Sends a command and returns its answer.

        Raises:
          WorkerError: If the arm fails, its process ends, or there is no answer in time.
        """
        self._send(command)
        answer: dict[str, Any] = json.loads(self._read_line(time.monotonic() + timeout_secs))
        if "error" in answer:
            raise WorkerError(answer["error"], answer["kind"], answer["traceback"])
        return answer

    def close(self) -> None:
        """Ends the process and its children; may be called twice."""
        if self.process.poll() is None:
            with contextlib.suppress(WorkerError, subprocess.TimeoutExpired):
                self._send({"do": "stop"})
                self.process.wait(_STOP_SECS)
        self._kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise self._death() from error

    def _read_line(self, deadline: float) -> bytes:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                started_at = time.monotonic()
                if not selector.select(max(0.0, deadline - started_at)):
                    self._kill()
                    raise WorkerError("no answer in time: ended by the harness")
                received = os.read(self.process.stdout.fileno(), 1 << 16)
                if not received:
                    raise self._death()
                self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _death(self) -> WorkerError:
        code = self.process.wait()
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        cause = signal.Signals(-code).name if code < 0 else f"code {code}"
        return WorkerError(f"the process ended ({cause}): {lines[-1] if lines else 'no message'}")


def environment(task: Task) -> dict[str, str]:
    """Returns the environment variables of a worker: the task's devices, and quiet frameworks."""
    variables = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
    if task.device == "cpu":
        return variables | {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    # Several workers share the device: none may take all of its memory.
    return variables | {
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


def run_python(code: str, task: Task) -> Any:
    """Runs a program on the task's devices and returns the JSON of its last line.

    Raises:
      RuntimeError: If the program fails; with the last line of its errors.
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(task),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return json.loads(done.stdout.strip().splitlines()[-1])
