"""The engine with `numerics="fast"` and the settings that `tune` finds fastest: bits of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.arms import engine_tuned
from benchmarks.race.workloads import Task
from gradloop.engine.tuning.choice import Bits


class Arm(engine_tuned.Arm):
    """See `benchmarks.arms.ArmProtocol`."""

    bits = Bits.FREE
    classes = tuple(Bits)  # what is fastest with fit's bits is tried in the others, too

    def __init__(self, task: Task, found: Mapping[str, Any] | None = None) -> None:
        super().__init__(task, found)
        self.bits_of = None

    def _config_values(self) -> dict[str, Any]:
        return {"numerics": "fast"} | super()._config_values()
