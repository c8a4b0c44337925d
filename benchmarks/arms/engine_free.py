"""The engine with `numerics="fast"` and the settings that `tune` finds fastest: bits of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from benchmarks.arms import engine as engine_arm
from benchmarks.arms import tf_runtime
from benchmarks.race import process, trials
from benchmarks.race.workloads import Task
from gradloop import engine
from gradloop.engine.tuning.search import OF_PROCESSES, tune

# Time for tuning, in the setup: enough for all candidates of a small net.
TUNE_SECS = 100.0
# What `tune` found, and all that it measured.
Found = tuple[dict[str, Any], list[dict[str, Any]]]


class Arm(engine_arm.Arm):
    """See `benchmarks.arms.ArmProtocol`. Tunes on models of its own before it builds the model.

    A process has its threads for good, so another one tunes, and this one begins with those found.
    """

    def __init__(self, task: Task, found: Mapping[str, Any] | None = None) -> None:
        found, measured = find_settings(task) if found is None else (found, [])
        self.found = dict(found)
        tf_runtime.set_threads(**{name: self.found.get(name) for name in OF_PROCESSES})
        super().__init__(
            dataclasses.replace(task, precision=self.found.get("precision", task.precision))
        )
        self.bits_of = None
        self.settings |= self.found | {"trials": measured}

    def tune(self, task: Task, max_secs: float) -> Found:
        """Returns the fastest settings of free bits, and all that was measured."""
        arrays = tf_runtime.load_train_arrays(task)
        config = engine.TrainConfig(**(self._config_values() | {"jit_compile": None}))
        tuning = tune(
            self._make_state,
            lambda **changes: self._make_dataset(*arrays, **changes),
            config,
            trial_in_process=functools.partial(_start_trial, task),
            max_secs=max_secs,
        )
        return tuning.fast, [dataclasses.asdict(one) for one in tuning.measurements]

    def _make_dataset(self, x: npt.NDArray[Any], y: npt.NDArray[Any], prefetch: int = 4) -> Any:
        return super()._make_dataset(x, y, self.found.get("prefetch", prefetch))

    def _config_values(self) -> dict[str, Any]:
        # Threads are the process's: `tf_runtime` has set them.
        of_others = ("prefetch", *OF_PROCESSES)
        of_config = {name: value for name, value in self.found.items() if name not in of_others}
        return super()._config_values() | {"numerics": "fast"} | of_config


def _start_trial(
    task: Task, changes: dict[str, Any]
) -> contextlib.AbstractContextManager[trials.ArmTrial]:
    """Starts an arm with these settings in a process of its own; see `engine.tuning.search`."""
    if "inter_op_threads" in changes:
        # `tune` tries them with the bits of fit alone, which are not this arm's: time for others.
        raise engine.ConfigError("inter_op_threads is not tried for free bits")
    return trials.started(__name__, task, changes)


def find_settings(task: Task, max_secs: float = TUNE_SECS) -> Found:
    """Tunes in a process of its own; see `Arm.tune`.

    Raises:
      RuntimeError: If that fails.
    """
    code = (
        "import json; from benchmarks.arms import engine_free; "
        f"print(json.dumps(engine_free.tune_task({task.to_dict()!r}, {max_secs})))"
    )
    found, measured = process.run_python(code, task)
    return found, measured


def tune_task(values: Mapping[str, Any], max_secs: float) -> Found:
    """Tunes a task. Context: the process that `find_settings` starts."""
    task = Task.from_dict(values)
    return Arm(task, {}).tune(task, max_secs)
