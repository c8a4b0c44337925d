"""The engine with the settings that `tune` finds fastest in the class of XLA's bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.arms import TooSlow, engine_tuned, keras_fit_xla
from benchmarks.race.workloads import Task
from gradloop.engine.tuning.choice import Bits


class Arm(engine_tuned.Arm):
    """See `benchmarks.arms.ArmProtocol`."""

    bits = Bits.XLA
    classes = (Bits.XLA,)

    def __init__(self, task: Task, found: Mapping[str, Any] | None = None) -> None:
        if task.jit_compile is False:
            raise NotImplementedError("jit_compile=False, and this arm is XLA's")
        super().__init__(task, found)
        self.bits_of = "keras_fit_xla" if task.workload.has_steady_bits else None

    def tune(self) -> engine_tuned.Found:
        """See `engine_tuned.Arm.tune`."""
        try:
            # Where fit gives up, there are no bits to have, and a search would take minutes.
            keras_fit_xla.probe(self._task)
        except TooSlow as error:
            return {}, [{"note": f"given up: {error}"}]
        return super().tune()

    @classmethod
    def find_settings(cls, task: Task) -> engine_tuned.Found:
        """See `engine_tuned.Arm.find_settings`.

        Raises:
          RuntimeError: If steps that XLA compiles cannot be measured.
          TooSlow: If one of them takes so long that nothing was.
        """
        found, measured = super().find_settings(task)
        if not found:
            notes = [one["note"] for one in measured if one["note"]]
            too_slow = next((note for note in notes if note.startswith("given up")), None)
            if too_slow:
                raise TooSlow(too_slow)
            raise RuntimeError("; ".join(notes) or "nothing was measured")
        return found, measured
