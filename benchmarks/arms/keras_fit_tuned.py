"""`Model.fit` with its fastest steps_per_execution: the bits of `keras_fit`.

The setup searches it: all candidates train models of their own for a short time, in turn. The
fastest one's settings then train the initial weights.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from benchmarks.arms import keras_fit, tf_runtime
from benchmarks.race.workloads import Task

STEPS_PER_EXECUTION = (1, 8, 32, 128, 512)
_NUM_TIMINGS = 3
_MAX_STEPS = 1024


def executions(num_steps: int) -> list[int]:
    """Returns the numbers of steps an execution to try; more than there are count as all of them.

    Args:
      num_steps: Of an epoch.
    """
    return sorted({min(number, num_steps) for number in STEPS_PER_EXECUTION})


class Candidate:
    """A model of its own, compiled with some settings, that trains for a short time.

    Args:
      task: Names the model.
      arrays: `x, y` to train on.
      steps_per_execution: Keras's.
      jit_compile: Keras's.

    Attributes:
      steps_per_execution: As given.
      secs: The measured times.
    """

    def __init__(
        self, task: Task, arrays: tuple[Any, Any], steps_per_execution: int, jit_compile: Any
    ) -> None:
        self.steps_per_execution = steps_per_execution
        self.secs: list[float] = []
        self._task = task
        self._arrays = arrays
        with tf_runtime.scope(task):
            self._model = tf_runtime.build_model(task)
            keras_fit.compile_model(
                self._model, task, steps_per_execution=steps_per_execution, jit_compile=jit_compile
            )

    def train(self, max_steps: int) -> float:
        """Trains for at most `max_steps` steps and returns the seconds."""
        size = max_steps * self._task.workload.global_batch_size
        x, y = (array[:size] for array in self._arrays)
        shuffle = not self._task.has_replicas
        dataset = tf_runtime.make_fit_dataset(self._task, x, y, shuffle=shuffle)
        started_at = time.perf_counter()
        self._model.fit(dataset, verbose=0)
        return time.perf_counter() - started_at

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings and all times."""
        return {"steps_per_execution": self.steps_per_execution, "secs": self.secs}


class Arm(keras_fit.Arm):
    """See `benchmarks.arms.ArmProtocol`. Measures the candidates before it builds the model.

    Attributes:
      found: The fastest setting, with the times of all that were tried.
    """

    def __init__(self, task: Task, found: Mapping[str, Any] | None = None) -> None:
        super().__init__(task)
        if found is None:
            candidates = measure_candidates(task, (self._x, self._y))
            best = min(candidates, key=lambda candidate: statistics.median(candidate.secs))
            tried = [candidate.to_dict() for candidate in candidates]
            found = {"steps_per_execution": best.steps_per_execution, "tried": tried}
            del candidates, best
            gc.collect()
        self.found = dict(found)
        self.settings["tried"] = found["tried"]
        self._build(steps_per_execution=found["steps_per_execution"])


def measure_candidates(
    task: Task, arrays: tuple[npt.NDArray[Any], npt.NDArray[Any]]
) -> list[Candidate]:
    """Returns the candidates with their times."""
    jit_compile = "auto" if task.jit_compile is None else task.jit_compile
    numbers = executions(task.workload.steps_per_epoch)
    candidates = [Candidate(task, arrays, number, jit_compile) for number in numbers]
    for candidate in candidates:
        candidate.train(tf_runtime.NUM_PROBE_STEPS)  # compiles
    for index in range(_NUM_TIMINGS):
        for candidate in candidates[:: -1 if index % 2 else 1]:
            candidate.secs.append(candidate.train(_MAX_STEPS))
    return candidates
