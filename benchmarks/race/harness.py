"""Races arms: each in a process of its own, one at a time, in turn.

    set up             A B C
    round 0 (warm-up)  A B C
    round 1            C B A
    round 2            A B C ...
    without dropout    A   C

An arm is a contender: one way to train the same net. One that is missing, raises, dies or hangs
leaves the race with a reason in one line; the others go on. A round takes seconds, so that what
disturbs it disturbs all arms: speeds are compared within a round. The race goes on until the
intervals of the ratios are narrow; see `stopping`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.hardware.energy import EnergyMeter
from benchmarks.race import stopping, trials
from benchmarks.race.process import Worker, WorkerError
from benchmarks.race.weights import WeightsStore
from benchmarks.race.workloads import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is run.

    Attributes:
      num_repeats: Counted runs of each arm, at most.
      num_warmups: Runs before those.
      num_epochs: Epochs of a run.
      max_secs: No further round starts after this many seconds of rounds, once five are counted.
      max_width: No further round starts once the intervals of the ratios that matter are at most
        this wide, as a share of the ratio; 0: the number and the time decide.
      timeout_secs: An arm that does not answer for this long is ended.
      pause_secs: Pause before each run. OpenMP's threads spin for 0.2 s after their last work, on
        the cores that the next arm needs.
      num_kept: Weights are read after so many first runs, and after the last.
      tries_threads: Names of the arms whose number of threads is found by trial; see `trials`.
    """

    num_repeats: int = 7
    num_warmups: int = 1
    num_epochs: int = 1
    max_secs: float = math.inf
    max_width: float = 0.0
    timeout_secs: float = 900.0
    pause_secs: float = 0.3
    num_kept: int = 5
    tries_threads: frozenset[str] = frozenset()


@dataclasses.dataclass
class ArmResult:
    """What one arm did. `losses` and `joules` have one value per run, warm-ups first.

    Attributes:
      status: "ok", "not_installed", "not_implemented", "too_slow", "failed", or "void" (see
        `correctness`).
      bits_of: The arm whose weights it must have bit for bit; None: its loss must be near.
      is_ceiling: Whether it is a bound that trains on other data and is not compared.
      plain_loss: Mean loss of a training without dropout, where the workload has dropout.
      weights: Files, one for each of `kept_runs`; equal weights are one file.
      kept_runs: Numbers of the runs, warm-ups first, after which the weights were kept.
    """

    name: str
    status: str = "ok"
    reason: str | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    bits_of: str | None = None
    is_ceiling: bool = False
    import_secs: float | None = None
    setup_secs: float | None = None
    peak_memory_bytes: int | None = None
    warmup_secs: list[float] = dataclasses.field(default_factory=list)
    secs: list[float] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)
    plain_loss: float | None = None
    joules: list[float | None] = dataclasses.field(default_factory=list)
    weights: list[Path] = dataclasses.field(default_factory=list)
    kept_runs: list[int] = dataclasses.field(default_factory=list)

    @property
    def short_name(self) -> str:
        """The last part of a dotted name."""
        return self.name.rpartition(".")[2]

    @property
    def is_ok(self) -> bool:
        """Whether the figures of the arm count."""
        return self.status == "ok"

    def fail(self, status: str, reason: str) -> None:
        """Takes the arm out of the race."""
        self.status, self.reason = status, reason


class Lane:
    """One arm in the race: its worker and its result so far.

    Args:
      name: Of the arm.
      python: Interpreter of the worker.
      task: What the arm does.
      plan: How often it does it.
    """

    def __init__(self, name: str, python: str, task: Task, plan: Plan) -> None:
        self.result = ArmResult(name)
        self._start = functools.partial(Worker, name, python, task, task.directory / f"{name}.log")
        self._find_threads = functools.partial(trials.find_threads, name, python, task)
        self._settings_of_threads: dict[str, Any] = {}
        self._plan = plan
        self._store = WeightsStore(task.directory)
        self._meter = EnergyMeter()
        self._worker: Worker | None = None

    def set_up(self) -> None:
        """Starts the worker; the arm builds its model and loads its data."""
        began, found, variables = time.monotonic(), None, {}
        if self.result.name in self._plan.tries_threads:
            threads = self._find_threads()
            found, variables = threads.found, threads.variables
            number = "one" if variables else "default"
            self._settings_of_threads = {"threads": number, "threads_tried": threads.tried}
        trial_secs = time.monotonic() - began
        self._worker = self._start(variables=variables)
        answer = self._ask(do="setup", found=found)
        del answer["found"]
        for name, value in answer.items():
            setattr(self.result, name, value)
        self.result.setup_secs = answer["setup_secs"] + trial_secs
        self.result.settings |= self._settings_of_threads

    def run(self, index: int) -> None:
        """Performs the run of a round."""
        time.sleep(self._plan.pause_secs)
        energy = self._meter.read()
        answer = self._ask(do="run", num_epochs=self._plan.num_epochs)
        result = self.result
        result.joules.append(self._meter.joules_since(energy))
        result.losses.append(answer["loss"])
        result.peak_memory_bytes = answer["peak_memory_bytes"]
        is_warmup = index < self._plan.num_warmups
        (result.warmup_secs if is_warmup else result.secs).append(answer["secs"])
        if index < self._plan.num_kept:
            self.keep_weights()

    def keep_weights(self) -> None:
        """Reads the weights after the last run, unless they were read."""
        index, result = len(self.result.losses) - 1, self.result
        if index in result.kept_runs:
            return
        path = self._store.new_path(result.name, index)
        chosen = self._ask(do="weights", path=str(path))
        result.settings = chosen["settings"] | self._settings_of_threads
        result.bits_of = chosen["bits_of"]
        result.weights.append(self._store.keep(path))
        result.kept_runs.append(index)

    def train_without_dropout(self) -> None:
        """Trains another of these arms without dropout, if its loss is what is compared."""
        result = self.result
        if result.bits_of in (None, result.short_name) and not result.is_ceiling:
            result.plain_loss = self._ask(do="plain")["loss"]

    def close(self) -> None:
        """Ends the worker."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _ask(self, **command: Any) -> dict[str, Any]:
        assert self._worker is not None
        return self._worker.ask(self._plan.timeout_secs, **command)


class Race:
    """The lanes of all arms. A context manager, so that no process outlives it.

    Args:
      lanes: Of the arms.
      report: Called with lines about the progress.
    """

    def __init__(self, lanes: Sequence[Lane], report: Callable[[str], None]) -> None:
        self._lanes = list(lanes)
        self._report = report

    def __enter__(self) -> Race:
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Ends all processes."""
        for lane in self._lanes:
            lane.close()

    def each(self, what: str, do: Callable[[Lane], None], *, backwards: bool = False) -> None:
        """Calls `do` with each lane that is still in the race, one at a time."""
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


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a race ended.

    Attributes:
      results: Of the arms, in their order.
      stopped_by: What ended it; see `stopping.reason_to_stop`.
    """

    results: list[ArmResult]
    stopped_by: str


def race(
    task: Task, pythons: Mapping[str, str], plan: Plan, report: Callable[[str], None]
) -> Outcome:
    """Runs all arms.

    Args:
      task: What all arms do; its directory must be prepared.
      pythons: Arm's name (a file in `benchmarks/arms`, or a dotted module) to interpreter.
      plan: How much is run.
      report: Called with lines about the progress.
    """
    lanes = [Lane(name, python, task, plan) for name, python in pythons.items()]
    results = [lane.result for lane in lanes]
    with Race(lanes, report) as running:
        running.each("set up", Lane.set_up)
        stopped_by = _run_rounds(running, results, plan)
        running.each("weights", Lane.keep_weights)
        if task.workload.has_dropout:
            running.each("without dropout", Lane.train_without_dropout)
    return Outcome(results, stopped_by)


def _run_rounds(running: Race, results: Sequence[ArmResult], plan: Plan) -> str:
    """Runs rounds until there is a reason to stop, and returns it."""
    deadline = time.monotonic() + plan.max_secs
    num_rounds = plan.num_warmups + plan.num_repeats
    for index in itertools.count():
        what = f"round {index + 1} of at most {num_rounds}"
        running.each(what, functools.partial(Lane.run, index=index), backwards=index % 2 == 1)
        reason = stopping.reason_to_stop(
            results,
            index + 1 - plan.num_warmups,
            num_rounds - index - 1,
            is_late=time.monotonic() > deadline,
            max_width=plan.max_width,
        )
        if reason is not None:
            return reason
    raise AssertionError("the number of rounds is limited")
