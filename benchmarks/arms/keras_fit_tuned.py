"""`Model.fit` on arrays with its fastest settings of steps_per_execution and XLA.

The setup searches them: all candidates train models of their own for a short time, in turn. The
fastest settings then train the initial weights.
"""

from __future__ import annotations

import gc
import statistics
import time
from typing import Any

import keras
import numpy.typing as npt

from benchmarks.arms import keras_fit, tf_runtime
from benchmarks.race.workloads import Task

STEPS_PER_EXECUTION = (1, 8, 32, 128)
_NUM_TIMINGS = 3
_MAX_STEPS = 1024
# If a few steps take this many times longer with XLA, no candidate with XLA is measured.
_HOPELESS = 3.0
_NUM_PROBE_STEPS = 10


class Candidate:
    """A model of its own, compiled with some settings, that trains for a short time.

    Args:
      task: Names the model.
      arrays: `x, y` to train on.
      steps_per_execution: Keras's.
      jit_compile: Keras's.

    Attributes:
      options: The settings.
      secs: The measured times.
    """

    def __init__(
        self, task: Task, arrays: tuple[Any, Any], steps_per_execution: int, jit_compile: bool
    ) -> None:
        self.options = {"steps_per_execution": steps_per_execution, "jit_compile": jit_compile}
        self.secs: list[float] = []
        self._arrays = arrays
        self._batch_size = task.workload.global_batch_size
        with tf_runtime.scope(task):
            self._model = tf_runtime.build_model(task)
            keras_fit.compile_model(
                self._model, task, steps_per_execution=steps_per_execution, jit_compile=jit_compile
            )

    def train(self, max_steps: int) -> float:
        """Trains for at most `max_steps` steps and returns the seconds."""
        x, y = (array[: max_steps * self._batch_size] for array in self._arrays)
        started_at = time.perf_counter()
        self._model.fit(x, y, batch_size=self._batch_size, verbose=0)
        return time.perf_counter() - started_at

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings and all times."""
        return {**self.options, "secs": self.secs}


class Arm(keras_fit.Arm):
    """See `benchmarks.arms.ArmProtocol`. Measures the candidates before it builds the model."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        candidates, skipped = measure_candidates(task, (self._x, self._y))
        best = min(candidates, key=lambda candidate: statistics.median(candidate.secs)).options
        with tf_runtime.scope(task):
            self._model = tf_runtime.build_model(task)
            keras_fit.compile_model(self._model, task, **best)
        # XLA changes the bits.
        self.claims_bits &= not best["jit_compile"] or task.jit_compile is True
        self.settings = {
            **best, "tried": [candidate.to_dict() for candidate in candidates], "skipped": skipped
        }  # fmt: skip
        del candidates
        gc.collect()


def measure_candidates(
    task: Task, arrays: tuple[npt.NDArray[Any], npt.NDArray[Any]]
) -> tuple[list[Candidate], str | None]:
    """Returns the candidates with their times, and why some were left out, or None."""
    pinned = task.jit_compile
    candidates, skipped = [], None
    for jit_compile in (False, True) if pinned is None else (pinned,):
        for number in STEPS_PER_EXECUTION:
            candidate = Candidate(task, arrays, number, jit_compile)
            candidate.train(_NUM_PROBE_STEPS)  # compiles
            if jit_compile and number == STEPS_PER_EXECUTION[0] and candidates:
                skipped = _compare_probes(candidates[0], candidate)
                if skipped is not None:
                    break
            candidates.append(candidate)
    for index in range(_NUM_TIMINGS):
        for candidate in candidates[:: -1 if index % 2 else 1]:
            keras.utils.set_random_seed(task.seed)
            candidate.secs.append(candidate.train(_MAX_STEPS))
    return candidates, skipped


def _compare_probes(plain: Candidate, xla: Candidate) -> str | None:
    secs, secs_xla = plain.train(_NUM_PROBE_STEPS), xla.train(_NUM_PROBE_STEPS)
    if secs_xla < _HOPELESS * secs:
        return None
    return f"XLA: {_NUM_PROBE_STEPS} steps took {secs_xla:.2g} s instead of {secs:.2g} s"
