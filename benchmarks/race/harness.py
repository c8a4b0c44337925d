"""Runs arms against each other: each in a process of its own, by turns, on a machine else quiet.

    set up A, B, C one after the other
    round 0 (warm-up)  A B C
    round 1            C B A
    round 2            A B C ...

An arm that is missing, raises, dies or does not answer leaves the race with one line that says so;
the others go on.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.hardware.energy import EnergyMeter
from benchmarks.race.process import Worker, WorkerError
from benchmarks.race.weights import WeightsStore
from benchmarks.race.workloads import Task

# What --max_secs leaves of the counted repeats.
MIN_REPEATS = 5
# OpenMP's threads spin for a fifth of a second after their last work, on the next arm's cores.
_PAUSE_SECS = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is run.

    Attributes:
      num_repeats: Counted runs of each arm.
      num_warmups: Runs before them.
      num_epochs: Of each run.
      max_secs: No further round begins after that many seconds of rounds, once five are counted.
      timeout_secs: After that long without an answer, an arm is taken to hang.
      keeps_all_weights: Whether weights are read after each run, not after the last alone.
    """

    num_repeats: int = 7
    num_warmups: int = 1
    num_epochs: int = 1
    max_secs: float = math.inf
    timeout_secs: float = 900.0
    keeps_all_weights: bool = True


@dataclasses.dataclass
class ArmResult:
    """What one arm did. `losses`, `joules` and `weights` have one value a run, warm-ups first.

    Attributes:
      status: "ok", "not_installed", "not_implemented", "failed"; "void" comes from the check.
      is_ceiling: Whether it trains on other data than the rest, as a bound, and is not compared.
      weights: Files; equal weights are one file.
    """

    name: str
    status: str = "ok"
    reason: str | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    claims_bits: bool = False
    is_ceiling: bool = False
    import_secs: float | None = None
    setup_secs: float | None = None
    peak_memory_bytes: int | None = None
    warmup_secs: list[float] = dataclasses.field(default_factory=list)
    secs: list[float] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)
    joules: list[float | None] = dataclasses.field(default_factory=list)
    weights: list[Path] = dataclasses.field(default_factory=list)

    @property
    def is_ok(self) -> bool:
        """Whether its figures count."""
        return self.status == "ok"

    def fail(self, status: str, reason: str) -> None:
        """Takes the arm out of the race."""
        self.status, self.reason = status, reason


class Lane:
    """One arm in the race: its worker and what it has done so far."""

    def __init__(self, name: str, python: str, task: Task, plan: Plan) -> None:
        """Takes what the worker will be started with."""
        self.result = ArmResult(name)
        self._start = functools.partial(Worker, name, python, task, task.directory / f"{name}.log")
        self._plan = plan
        self._store = WeightsStore(task.directory)
        self._meter = EnergyMeter()
        self._worker: Worker | None = None

    def set_up(self) -> None:
        """Starts the process; the arm makes its model and loads its data."""
        self._worker = self._start()
        answer = self._ask(do="setup")
        for name, value in answer.items():
            setattr(self.result, name, value)

    def run(self, index: int, *, is_last: bool) -> None:
        """Does the run of a round."""
        time.sleep(_PAUSE_SECS)
        energy = self._meter.read()
        answer = self._ask(do="run", num_epochs=self._plan.num_epochs)
        result = self.result
        result.joules.append(self._meter.joules_since(energy))
        result.losses.append(answer["loss"])
        result.peak_memory_bytes = answer["peak_memory_bytes"]
        is_warmup = index < self._plan.num_warmups
        (result.warmup_secs if is_warmup else result.secs).append(answer["secs"])
        if is_last or self._plan.keeps_all_weights:
            path = self._store.new_path(result.name, index)
            chosen = self._ask(do="weights", path=str(path))
            result.settings, result.claims_bits = chosen["settings"], chosen["claims_bits"]
            result.weights.append(self._store.keep(path))

    def close(self) -> None:
        """Ends the worker."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _ask(self, **command: Any) -> dict[str, Any]:
        assert self._worker is not None
        return self._worker.ask(self._plan.timeout_secs, **command)


class Race:
    """The lanes of all arms. A context manager, so that no process outlives it."""

    def __init__(self, lanes: Sequence[Lane], report: Callable[[str], None]) -> None:
        """Takes the lanes, and what is told how far the race is."""
        self._lanes = list(lanes)
        self._report = report

    def __enter__(self) -> Race:
        """Returns itself."""
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends all processes."""
        for lane in self._lanes:
            lane.close()

    def each(self, what: str, do: Callable[[Lane], None], *, backwards: bool = False) -> None:
        """Does something with each lane still in the race, one at a time."""
        for lane in self._lanes[:: -1 if backwards else 1]:
            if not lane.result.is_ok:
                continue
            self._report(f"{what}: {lane.result.name}")
            try:
                do(lane)
            except WorkerError as error:
                lane.result.fail(error.status, str(error))
                lane.close()
                self._report(f"{lane.result.name}: {error.status}: {error}")
                if error.status == "failed" and error.details:
                    self._report(error.details)


def race(
    task: Task, pythons: Mapping[str, str], plan: Plan, report: Callable[[str], None]
) -> list[ArmResult]:
    """Runs all arms and returns what each did, in the order of `pythons`.

    Args:
      task: What all arms do; its folder must be prepared.
      pythons: Arm's name (a file in `benchmarks/arms`, or a dotted module) to interpreter.
      plan: How much is run.
      report: Called with lines about the progress.
    """
    lanes = [Lane(name, python, task, plan) for name, python in pythons.items()]
    num_rounds = plan.num_warmups + plan.num_repeats
    with Race(lanes, report) as running:
        running.each("set up", Lane.set_up)
        deadline = time.monotonic() + plan.max_secs
        for index in range(num_rounds):
            # With too little time for all rounds, the weights of any round may be the last ones.
            is_last = index == num_rounds - 1 or time.monotonic() > deadline
            may_end = index + 1 - plan.num_warmups >= MIN_REPEATS
            running.each(
                f"round {index + 1} of {num_rounds}",
                functools.partial(Lane.run, index=index, is_last=is_last),
                backwards=index % 2 == 1,
            )
            if is_last and may_end:
                break
    return [lane.result for lane in lanes]
