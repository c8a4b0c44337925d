"""One start of several worker processes on this machine: environment, logs, signals, ends."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

HOST = "127.0.0.1"
_PR_SET_PDEATHSIG = 1
_TAIL_BYTES = 16_384


class Workers:
    """Processes that are a cluster for TensorFlow, on ports that nobody else gets.

    Worker 0, the chief, writes to the stdout and stderr of this process, each other one to
    `worker-<i>.log`. Each is in a session of its own, so that a terminal sends Ctrl-C to this
    process alone. On Linux they are killed when the thread ends that has created them.

    Args:
      command: What each of them runs.
      num_workers: How many.
      logs: An existing directory for the logs, which are appended to.
      gpus: The GPUs to share out, as CUDA names them; empty: the environment stays as it is.

    Attributes:
      ended: Worker and exit code (minus the number of the signal that killed it) of those that
        have ended by themselves, in the order in which that was noticed.

    Raises:
      OSError: If a process cannot be started; those before it are killed.
    """

    def __init__(
        self, command: Sequence[str], num_workers: int, logs: Path, gpus: Sequence[str] = ()
    ) -> None:
        self.ended: list[tuple[int, int]] = []
        self._logs = logs
        self._is_killed = False
        self._ports = [_reserve_port() for _ in range(num_workers)]
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            for index in range(num_workers):
                share = gpus[index::num_workers]
                self._processes.append(self._start(command, index, share))
        except BaseException:
            self.kill()
            self.close()
            raise

    def _start(
        self, command: Sequence[str], index: int, gpus: Sequence[str]
    ) -> subprocess.Popen[bytes]:
        environment = os.environ | self._describe(index)
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        with contextlib.ExitStack() as stack:
            log = None if index == 0 else stack.enter_context(self.log(index).open("ab"))
            return subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=make_beginning(),  # noqa: PLW1509 - it makes two system calls
            )

    def _describe(self, index: int) -> dict[str, str]:
        addresses = [f"{HOST}:{port.getsockname()[1]}" for port in self._ports]
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        # The second: TensorFlow takes a port that this process keeps from all others.
        return {"TF_CONFIG": json.dumps(cluster), "TF_GRPC_REUSE_PORT": "1"}

    def log(self, index: int) -> Path:
        """Returns the log of a worker that is not the chief."""
        return self._logs / f"worker-{index}.log"

    def last_lines(self, index: int, count: int = 10) -> list[str]:
        """Returns the end of a worker's log; nothing of the chief's, which is on the screen."""
        if index == 0:
            return []
        with self.log(index).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()[-count:]

    def poll(self) -> bool:
        """Notes who has ended; returns whether a process still runs."""
        known = {index for index, _ in self.ended}
        codes = [process.poll() for process in self._processes]
        if not self._is_killed:
            self.ended += [
                (i, code) for i, code in enumerate(codes) if code is not None and i not in known
            ]
        return None in codes

    def send(self, number: int) -> None:
        """Sends a signal to each process that still runs."""
        for process in self._processes:
            process.send_signal(number)

    def kill(self) -> None:
        """Kills all that still run, and the processes that these have started.

        Context: any thread.
        """
        self._is_killed = True
        for process in self._processes:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Waits for the processes, and gives the ports back."""
        for process in self._processes:
            process.wait()
        for port in self._ports:
            port.close()


def visible_gpus() -> list[str]:
    """Returns the NVIDIA GPUs that a process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        # What is no GPU, such as -1, hides itself and all that follow.
        listed = [name.strip() for name in named.split(",")]
        return list(itertools.takewhile(lambda one: one and not one.startswith("-"), listed))
    names = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return [str(n) for n in range(sum(name is not None for name in names))]


def _reserve_port() -> socket.socket:
    """Returns a socket that keeps a free port: bound, and never listened on.

    Where the system lets two sockets of a user share a port, TensorFlow's server takes it while it
    is kept. Elsewhere it is free from here on, and another process may take it: then the worker
    ends, and all are started again with other ports.
    """
    kept = socket.socket()
    can_share = sys.platform == "linux"
    if can_share:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    kept.bind((HOST, 0))
    return kept


def make_beginning() -> Callable[[], object]:
    """Returns what a new process calls first.

    It does not ignore SIGINT, as what a script starts in the background does, and on Linux it is
    killed when its parent ends.
    """
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def begin() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return begin
