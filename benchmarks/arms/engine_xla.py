"""The engine with many steps in one XLA program: the bits of `fit(jit_compile=True)`."""

from __future__ import annotations

from typing import Any

from benchmarks.arms import engine as engine_arm
from benchmarks.arms import tf_runtime
from benchmarks.race.workloads import Task
from gradloop import engine


class Arm(engine_arm.Arm):
    """See `benchmarks.arms.ArmProtocol`."""

    def __init__(self, task: Task) -> None:
        if task.jit_compile is False:
            raise NotImplementedError("jit_compile=False, and this arm is XLA's")
        super().__init__(task)
        self.bits_of = "keras_fit_xla" if task.workload.has_steady_bits else None
        tf_runtime.probe_xla(*(self._make_probe(values) for values in self._probed()))

    def _config_values(self) -> dict[str, Any]:
        return super()._config_values() | {"jit_compile": True, "jit_scope": "loop"}

    def _probed(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the fields of a config without XLA, and of this arm's."""
        return super()._config_values() | {"jit_compile": False}, self._config_values()

    def _make_probe(self, values: dict[str, Any]) -> Any:
        """Returns a function that trains some steps of another model."""
        state = self._make_state()
        dataset = self._make_dataset(*tf_runtime.load_train_arrays(self._task))
        num_steps = min(tf_runtime.NUM_PROBE_STEPS, self._task.workload.steps_per_epoch)
        config = engine.TrainConfig(epochs=1, steps_per_epoch=num_steps, **values)
        return lambda: engine.fit(state, dataset, config)
