"""`Model.fit(jit_compile=True)` at its fastest steps_per_execution: the reference of XLA's bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from benchmarks.arms import TooSlow, keras_fit_tuned, tf_runtime
from benchmarks.race.workloads import Task

# Steps in XLA that take this many times longer than those without it are not raced.
HOPELESS = 3.0


class Arm(keras_fit_tuned.Arm):
    """See `benchmarks.arms.ArmProtocol`."""

    def __init__(self, task: Task, found: Mapping[str, Any] | None = None) -> None:
        if task.jit_compile is False:
            raise NotImplementedError("jit_compile=False, and this arm is XLA's")
        tf_runtime.configure(task)
        if found is None:
            probe(task)
        super().__init__(dataclasses.replace(task, jit_compile=True), found)
        self.bits_of = "keras_fit_xla" if task.workload.has_steady_bits else None


def probe(task: Task) -> None:
    """Checks that XLA is not hopeless for a model, as it is for convolutions on a CPU.

    Raises:
      TooSlow: If it is.
    """
    num_steps, arrays, secs = tf_runtime.NUM_PROBE_STEPS, tf_runtime.load_fit_arrays(task), []
    for is_compiled in (False, True):
        candidate = keras_fit_tuned.Candidate(task, arrays, 1, is_compiled)
        candidate.train(num_steps)  # compiles
        secs.append(candidate.train(num_steps))
    plain, xla = secs
    if xla > HOPELESS * plain:
        raise TooSlow(f"{num_steps} steps took {xla:.2g} s with XLA, {plain:.2g} s without")
