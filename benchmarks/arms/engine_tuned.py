"""The engine with the settings that `tune` finds fastest in the class of fit's bits."""

from __future__ import annotations

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
from gradloop.engine.tuning.choice import CHOICES, OF_PROCESSES, Bits
from gradloop.engine.tuning.search import tune

# What `tune` found, and all that it measured.
Found = tuple[dict[str, Any], list[dict[str, Any]]]


class Arm(engine_arm.Arm):
    """See `benchmarks.arms.ArmProtocol`. Tunes on models of its own before it builds the model.

    A process has its threads for good, so another one tunes, and this one begins with those found.
    """

    # The class whose fastest settings it has, and those that are searched for it.
    bits = Bits.FIT
    classes: tuple[Bits, ...] = (Bits.FIT,)
    tune_secs = 50.0  # for each class, in the setup

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
            trial_in_process=functools.partial(trials.started, type(self).__module__, self._task),
            max_secs=self.tune_secs * len(self.classes),
            classes=self.classes,
        )
        chosen = getattr(tuning, CHOICES[self.bits])
        return chosen, [dataclasses.asdict(one) for one in tuning.measurements]

    def _make_dataset(self, x: npt.NDArray[Any], y: npt.NDArray[Any], prefetch: int = 4) -> Any:
        return super()._make_dataset(x, y, self.found.get("prefetch", prefetch))

    def _config_values(self) -> dict[str, Any]:
        # Threads are the process's: `tf_runtime` has set them.
        of_others = ("prefetch", *OF_PROCESSES)
        of_config = {name: value for name, value in self.found.items() if name not in of_others}
        return super()._config_values() | of_config
