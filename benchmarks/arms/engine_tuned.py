"""The engine with the settings that `tune` finds fastest among those with fit's bits."""

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
from gradloop.engine.tuning.choice import CHOICES, Bits
from gradloop.engine.tuning.search import OF_PROCESSES, tune

# What `tune` found, and all that it measured.
Found = tuple[dict[str, Any], list[dict[str, Any]]]


class Arm(engine_arm.Arm):
    """See `benchmarks.arms.ArmProtocol`. Tunes on models of its own before it builds the model.

    A process has its threads for good, so another one tunes, and this one begins with those found.
    """

    # The class whose fastest settings it has.
    bits = Bits.FIT
    # Time for tuning, in the setup: enough for this class, which is the first that `tune` tries.
    tune_secs = 30.0
    # The number of threads that `tune` tries in this class alone.
    threads = "inter_op_threads"

    def __init__(self, task: Task, found: Mapping[str, Any] | None = None) -> None:
        found, measured = self.find_settings(task) if found is None else (found, [])
        self.found = dict(found)
        tf_runtime.set_threads(**{name: self.found.get(name) for name in OF_PROCESSES})
        super().__init__(
            dataclasses.replace(task, precision=self.found.get("precision", task.precision))
        )
        self.settings |= self.found | {"trials": measured}

    @classmethod
    def find_settings(cls, task: Task) -> Found:
        """Tunes in a process of its own; see `tune`.

        Raises:
          RuntimeError: If that fails.
        """
        name = cls.__module__
        code = (
            f"import json; from benchmarks.race.workloads import Task; from {name} import Arm; "
            f"arm = Arm(Task.from_dict({task.to_dict()!r}), {{}}); "
            "print(json.dumps(arm.tune()))"
        )
        found, measured = process.run_python(code, task)
        return found, measured

    def tune(self) -> Found:
        """Returns the fastest settings of the class, and all that was tried."""
        arrays = tf_runtime.load_train_arrays(self._task)
        config = engine.TrainConfig(**(self._config_values() | {"jit_compile": None}))
        tuning = tune(
            self._make_state,
            lambda **changes: self._make_dataset(*arrays, **changes),
            config,
            trial_in_process=functools.partial(self._start_trial, self._task),
            max_secs=self.tune_secs,
        )
        chosen = getattr(tuning, CHOICES[self.bits])
        return chosen, [dataclasses.asdict(one) for one in tuning.measurements]

    @classmethod
    def _start_trial(
        cls, task: Task, changes: dict[str, Any]
    ) -> contextlib.AbstractContextManager[trials.ArmTrial]:
        """Starts an arm with these settings in another process; see `engine.tuning.search`."""
        if {*OF_PROCESSES} & {*changes} - {cls.threads}:  # time for others
            raise engine.ConfigError(f"of the threads, this arm tries {cls.threads}")
        return trials.started(cls.__module__, task, changes)

    def _make_dataset(self, x: npt.NDArray[Any], y: npt.NDArray[Any], prefetch: int = 4) -> Any:
        return super()._make_dataset(x, y, self.found.get("prefetch", prefetch))

    def _config_values(self) -> dict[str, Any]:
        # Threads are the process's: `tf_runtime` has set them.
        of_others = ("prefetch", *OF_PROCESSES)
        of_config = {name: value for name, value in self.found.items() if name not in of_others}
        return super()._config_values() | of_config
