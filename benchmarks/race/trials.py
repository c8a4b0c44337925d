"""Arms that take turns in processes of their own: for settings that a process has for good.

TensorFlow's threads are fixed at its first operation, and `torch.compile` makes code for a number
of threads. Imports no framework.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.race.process import Worker, WorkerError
from benchmarks.race.workloads import Task

# To set up or to train an epoch: an arm that does not answer is given up.
TIME_LIMIT_SECS = 300.0
NUM_ROUNDS = 5
# As in a race: OpenMP's threads spin for 0.2 s after their last work.
PAUSE_SECS = 0.3


class ArmTrial:
    """An arm in another process, measured in epochs; see `engine.tuning.trial.Measurable`.

    Args:
      worker: Hosts the arm.
      task: What it does.
      found: The settings that it is made with.

    Attributes:
      found: As given.
      speeds: Steps a second, of each window.
    """

    def __init__(self, worker: Worker, task: Task, found: Mapping[str, Any]) -> None:
        self.found = dict(found)
        self.speeds: list[float] = []
        self._worker = worker
        self._steps_per_epoch = task.workload.steps_per_epoch
        self._is_warm = False

    def warm_up(self, secs: float | None = None) -> None:
        """Sets the arm up, and trains an epoch; does so only once."""
        if not self._is_warm:
            self._ask(do="setup", found=self.found)
            self._ask(do="run", num_epochs=1)
            self._is_warm = True

    def measure(self, secs: float | None = None) -> None:
        """Trains an epoch, and more until `secs` have passed."""
        num_epochs, passed = 0, 0.0
        while num_epochs == 0 or passed < (secs or 0.0):
            passed += self._ask(do="run", num_epochs=1)["secs"]
            num_epochs += 1
        self.speeds.append(num_epochs * self._steps_per_epoch / passed)

    def _ask(self, **command: Any) -> dict[str, Any]:
        """Returns the arm's answer.

        Raises:
          OSError: If the arm fails, or does not answer.
        """
        try:
            return self._worker.ask(TIME_LIMIT_SECS, **command)
        except WorkerError as error:
            raise OSError(str(error)) from error


@contextlib.contextmanager
def started(arm: str, task: Task, found: Mapping[str, Any]) -> Iterator[ArmTrial]:
    """Starts a process with an arm of these settings; it ends with the block.

    Args:
      arm: Its dotted module.
      task: What it does.
      found: Passed to the arm; see `benchmarks.arms.ArmProtocol`.
    """
    with tempfile.TemporaryDirectory() as directory:
        worker = Worker(arm, sys.executable, task, Path(directory, "log"))
        with contextlib.closing(worker):
            yield ArmTrial(worker, task, found)


def find_num_threads(arm: str, task: Task) -> dict[str, Any]:
    """Returns with how many threads an arm is fastest: one, or its framework's default.

    Args:
      arm: Dotted module, whose `Arm` takes `found` as it is returned here.
      task: What the arm does. On a GPU nothing is tried.

    Returns:
      "num_threads": 1, or None for the default; and "tried": all that was measured.

    Raises:
      OSError: If the arm fails.
    """
    if task.device != "cpu":
        return {"num_threads": None, "tried": []}
    with contextlib.ExitStack() as processes:
        trials = [
            processes.enter_context(started(arm, task, {"num_threads": number}))
            for number in (None, 1)
        ]
        for trial in trials:
            trial.warm_up()
        for index in range(NUM_ROUNDS):
            for trial in trials[:: -1 if index % 2 else 1]:
                time.sleep(PAUSE_SECS)
                trial.measure()
    best = max(trials, key=lambda trial: statistics.median(trial.speeds))
    return best.found | {"tried": [t.found | {"steps_per_sec": t.speeds} for t in trials]}
