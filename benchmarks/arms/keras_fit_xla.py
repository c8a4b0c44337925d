"""`Model.fit(jit_compile=True)` at its fastest steps_per_execution: the reference of XLA's bits."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from benchmarks.arms import keras_fit_tuned, tf_runtime
from benchmarks.race.workloads import Task


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
    """Checks that XLA is not hopeless for a model.

    Raises:
      TooSlow: If it is.
    """
    arrays = tf_runtime.load_fit_arrays(task)
    plain, xla = (
        keras_fit_tuned.Candidate(task, arrays, 1, is_compiled) for is_compiled in (False, True)
    )
    tf_runtime.probe_xla(*(
        functools.partial(one.train, tf_runtime.NUM_PROBE_STEPS) for one in (plain, xla)
    ))  # fmt: skip
