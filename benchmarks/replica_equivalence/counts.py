"""Runs a training at one count: one process of logical devices, or one process a worker."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ROOT

_TRAINING = "benchmarks.replica_equivalence.training"
_SHOWN_CHARACTERS = 2000
_POLL_SECS = 0.1


@dataclasses.dataclass(frozen=True)
class Count:
    """How many replicas there are, and where.

    Attributes:
      num_replicas: All together.
      by_workers: Whether each is a process; otherwise, all are logical devices of one.
      reverses: Whether the examples of each batch come in the other order.
    """

    num_replicas: int
    by_workers: bool = False
    reverses: bool = False

    def __str__(self) -> str:
        """The count as a row of the table names it."""
        kind = "worker" if self.by_workers else "replica"
        plural = "s" if self.num_replicas > 1 else ""
        return f"{self.num_replicas} {kind}{plural}{', reversed' if self.reverses else ''}"


@dataclasses.dataclass(frozen=True)
class Result:
    """What a training ended with: weights by path, loss and metrics by name."""

    weights: dict[str, np.ndarray]
    logs: dict[str, float]


def run(count: Count, task: dict[str, Any], max_secs: float) -> Result:
    """Trains in new processes, on the CPU, and returns what came out.

    Args:
      count: How many.
      task: The rest of the fields of `training.Task`.
      max_secs: After which the processes are killed.

    Raises:
      RuntimeError: If a process fails, or takes longer; with the end of what it said.
    """
    with tempfile.TemporaryDirectory(prefix="gradloop-equivalence-") as directory:
        path = Path(directory, "weights.npz")
        num_replicas = None if count.by_workers else count.num_replicas
        task = task | {
            "num_replicas": num_replicas, "reverses": count.reverses, "path": str(path),
        }  # fmt: skip
        clusters = _clusters(count.num_replicas) if count.by_workers else [None]
        files = [Path(directory, f"log-{index}") for index in range(len(clusters))]
        with contextlib.ExitStack() as stack:
            processes = [
                stack.enter_context(_started(json.dumps(task), cluster, file))
                for cluster, file in zip(clusters, files, strict=True)
            ]
            _wait(count, processes, files, max_secs)
        with np.load(path) as arrays:
            weights = dict(arrays)
        logs = json.loads(path.with_suffix(".json").read_text("utf-8"))
    return Result(weights, logs)


def _clusters(num_workers: int) -> list[str | None]:
    """Returns `TF_CONFIG` for each of some workers on ports of this machine that are free."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(num_workers)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        for index in range(num_workers)
    ]


@contextlib.contextmanager
def _started(task: str, cluster: str | None, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    # Without GPUs: their sums are not in the same order from run to run.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    environment.pop("TF_CONFIG", None)
    if cluster is not None:
        environment["TF_CONFIG"] = cluster
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", _TRAINING, task], cwd=ROOT, env=environment,
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait(
    count: Count,
    processes: Sequence[subprocess.Popen[bytes]],
    logs: Sequence[Path],
    max_secs: float,
) -> None:
    ends_at = time.monotonic() + max_secs
    while True:
        codes = [process.poll() for process in processes]
        for code, log in zip(codes, logs, strict=True):
            if code:
                text = log.read_text("utf-8", "replace").strip()[-_SHOWN_CHARACTERS:]
                raise RuntimeError(f"{count}: a process ended with code {code}: {text}")
        if None not in codes:
            return
        if time.monotonic() > ends_at:
            raise RuntimeError(f"{count}: not done after {max_secs:.0f} seconds")
        time.sleep(_POLL_SECS)
