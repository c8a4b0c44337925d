"""Starts the workers of a cluster on loopback, with a script; its counterpart is one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
TIMEOUT_SECS = 280
ALONE = "{}"  # TF_CONFIG of a process that has no peers


def free_ports(num_ports: int) -> list[int]:
    sockets = [socket.socket() for _ in range(num_ports)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def tf_configs(num_workers: int) -> list[str]:
    """Returns the TF_CONFIG of each worker."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(num_workers)]
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        for index in range(num_workers)
    ]


def run(module: str, folder: Path, configs: list[str]) -> list[dict[str, Any]]:
    """Runs `python -m module FOLDER NAME` with each TF_CONFIG at once; returns what they wrote.

    Each writes JSON to FOLDER/NAME.json. All are killed when the time is over.
    """
    names = [f"alone{i}" if one == ALONE else f"worker{i}" for i, one in enumerate(configs)]
    started = []
    try:
        for name, config in zip(names, configs, strict=True):
            with (folder / f"{name}.log").open("w") as log:
                started.append(_start(module, folder, name, config, log))
        codes = _wait(started)
    finally:
        for process in started:
            process.kill()
            process.wait()
    logs = "\n".join((folder / f"{name}.log").read_text()[-4000:] for name in names)
    assert codes == [0] * len(codes), f"exit codes {codes}\n{logs}"
    return [json.loads((folder / f"{name}.json").read_text()) for name in names]


def _wait(processes: list[subprocess.Popen[bytes]]) -> list[int | None]:
    """Returns the exit codes when all have ended, or one has failed."""
    end = time.monotonic() + TIMEOUT_SECS
    while time.monotonic() < end:
        codes = [process.poll() for process in processes]
        if None not in codes or any(codes):
            return codes
        time.sleep(0.1)
    return [process.poll() for process in processes]


def _start(module: str, folder: Path, name: str, config: str, log: Any) -> subprocess.Popen[bytes]:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_CONFIG": config}
    command = [sys.executable, "-W", "error", "-m", module, str(folder), name]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
