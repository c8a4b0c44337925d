"""Arms that take turns in processes of their own: for settings that a process has for good.

A framework's threads are fixed at its first operation. Imports no framework.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.race import weights
from benchmarks.race.process import Worker
from benchmarks.race.workloads import Task

# To set up or to train an epoch: an arm that does not answer is given up.
TIME_LIMIT_SECS = 300.0
NUM_ROUNDS = 5
# As in a race: OpenMP's threads spin for 0.2 s after their last work.
PAUSE_SECS = 0.3
# One thread that is so many times slower, at its best, is not measured any further after the first
# rounds. Of one round alone, an outlier would decide.
HOPELESS = 1.3
_NUM_FIRST_ROUNDS = 2
# For whichever framework an arm has: TensorFlow, PyTorch, JAX.
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1", "NPROC": "1"}


class ArmTrial:
    """An arm in another process, measured in epochs.

    See `engine.tuning.trial.MeasurableInProcess`.

    Args:
      worker: Hosts the arm.
      task: What it does.
      found: The settings that it is made with; None: it looks for some.

    Attributes:
      found: Those that it has.
      bits_of: See `benchmarks.arms.ArmProtocol`.
      speeds: Steps a second, of each window.
    """

    def __init__(self, worker: Worker, task: Task, found: Mapping[str, Any] | None) -> None:
        self.found = found
        self.bits_of: str | None = None
        self.speeds: list[float] = []
        self._worker = worker
        self._bits = ""
        self._steps_per_epoch = task.workload.steps_per_epoch
        self._is_warm = False

    def warm_up(self, secs: float | None = None) -> None:
        """Sets the arm up, and trains an epoch; does so only once."""
        if not self._is_warm:
            answer = self._ask(do="setup", found=self.found)
            self.found, self.bits_of = answer["found"], answer["bits_of"]
            self._ask(do="run", num_epochs=1)
            self._bits = self._digest_of_weights()
            self._is_warm = True

    def measure(self, secs: float | None = None) -> None:
        """Trains an epoch, and more until `secs` have passed."""
        num_epochs, passed = 0, 0.0
        while num_epochs == 0 or passed < (secs or 0.0):
            passed += self._ask(do="run", num_epochs=1)["secs"]
            num_epochs += 1
        self.speeds.append(num_epochs * self._steps_per_epoch / passed)

    def bits(self) -> str:
        """Returns a digest of the weights after the first epoch."""
        self.warm_up()
        return self._bits

    def _digest_of_weights(self) -> str:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "weights.npz")
            self._ask(do="weights", path=str(path))
            values = b"".join(value.tobytes() for value in weights.load(path))
            return hashlib.sha256(values).hexdigest()

    def _ask(self, **command: Any) -> dict[str, Any]:
        return self._worker.ask(TIME_LIMIT_SECS, **command)


@contextlib.contextmanager
def started(
    arm: str,
    task: Task,
    found: Mapping[str, Any] | None = None,
    *,
    python: str = sys.executable,
    variables: Mapping[str, str] | None = None,
) -> Iterator[ArmTrial]:
    """Starts a process with an arm of these settings; it ends with the block.

    Args:
      arm: Its name, or its dotted module.
      task: What it does.
      found: Passed to the arm; see `benchmarks.arms.ArmProtocol`. None: it looks for some.
      python: Interpreter to start.
      variables: Environment variables of the process.
    """
    with tempfile.TemporaryDirectory() as directory:
        worker = Worker(arm, python, task, Path(directory, "log"), variables)
        with contextlib.closing(worker):
            yield ArmTrial(worker, task, found)


@dataclasses.dataclass(frozen=True)
class Threads:
    """With which number of threads an arm is fastest.

    Attributes:
      variables: Environment variables that it needs: those of one thread, or none, for the default.
      found: What the arm itself has found by trial; None: nothing.
      tried: Steps a second of both, "default" and "one", by round.
    """

    variables: dict[str, str]
    found: Mapping[str, Any] | None
    tried: dict[str, list[float]]


def find_threads(arm: str, python: str, task: Task) -> Threads:
    """Returns whether an arm is faster with one thread, or with its framework's default.

    The number of threads may change bits: an arm that must have those of another one gets another
    number only if both have the same weights, bit for bit, after an epoch.

    Args:
      arm: Its name, or its dotted module.
      python: Its interpreter.
      task: What the arm does.

    Raises:
      WorkerError: If the arm fails.
    """
    with contextlib.ExitStack() as processes:

        def start(found: Mapping[str, Any] | None, variables: Mapping[str, str]) -> ArmTrial:
            context = started(arm, task, found, python=python, variables=variables)
            trial = processes.enter_context(context)
            trial.warm_up()
            return trial

        default = start(None, {})
        one = start(default.found, ONE_THREAD)
        for index in range(NUM_ROUNDS):
            for trial in (default, one)[:: -1 if index % 2 else 1]:
                time.sleep(PAUSE_SECS)
                trial.measure()
            is_first = index + 1 < _NUM_FIRST_ROUNDS
            if not is_first and min(default.speeds) > HOPELESS * max(one.speeds):
                break
        is_faster = statistics.median(one.speeds) > statistics.median(default.speeds)
        if is_faster and default.bits_of is not None:
            is_faster = default.bits() == one.bits()
    tried = {"default": default.speeds, "one": one.speeds}
    return Threads(dict(ONE_THREAD) if is_faster else {}, default.found, tried)
