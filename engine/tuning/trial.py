"""Trials: trainings that take turns, so that their speeds can be compared."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import tensorflow as tf

from ..building import as_compiled
from ..config import TrainConfig
from ..planner import NEVER, Execution, Planner
from ..replicated_step import StepFn
from ..source import Source
from ..state import TrainState
from ..step_function import make_train_function
from ..strategy import may_train_resident
from ..timing import COMPUTE, DATA, DISPATCH, Timing

WARM_UP_SECS = 1.0
WINDOW_SECS = 0.25
NUM_ROUNDS = 9


class Trial:
    """One way to train, measured in short windows.

    Args:
      dataset: As in `fit`.
      state: Built. The trial trains it; several trials may share one.
      config: As in `fit`.
      step: `(state, batch) -> logs`.
      resident: See `Source`.

    Attributes:
      speeds: Steps a second, of each window.
      batches_per_step: One, unless the step takes more by itself.
    """

    def __init__(
        self,
        dataset: tf.data.Dataset,
        state: TrainState,
        config: TrainConfig,
        step: StepFn,
        *,
        resident: bool,
    ) -> None:
        # A trial makes pass after pass; only a pass without end needs a length.
        is_endless = dataset.cardinality() == tf.data.INFINITE_CARDINALITY
        steps_per_epoch = config.steps_per_epoch if is_endless else None
        self._source = Source(dataset, state.strategy, steps_per_epoch, resident=resident)
        self._function = make_train_function(step, state, state.strategy, config)
        self.batches_per_step = self._function.count_batches(self._source.element_spec)
        self._source.group(self.batches_per_step)
        self._planner = Planner(config, state=state)
        self._timing = Timing()
        self._executions = self._run()
        self.speeds: list[float] = []
        self._cores_busy: list[float] = []
        self._is_warm = False

    @property
    def speed(self) -> float:
        """Steps a second: the median of the windows."""
        return statistics.median(self.speeds)

    @property
    def cores_busy(self) -> float:
        """Processor seconds of this process in a second: the median of the windows."""
        return statistics.median(self._cores_busy)

    @property
    def waiting_share(self) -> float:
        """Share of the time in executions that was spent waiting for a batch."""
        secs = self._timing.secs
        return secs[DATA] / (secs[DATA] + secs[COMPUTE] + secs[DISPATCH])

    def warm_up(self, secs: float | None = None) -> None:
        """Traces, and lets the planner find the size of executions; does so only once.

        Args:
          secs: How long; default: `WARM_UP_SECS`.
        """
        if not self._is_warm:
            self._run_for(WARM_UP_SECS if secs is None else secs)
            self._is_warm = True

    def measure(self, secs: float | None = None) -> None:
        """Runs one window.

        Args:
          secs: How long; default: `WINDOW_SECS`.
        """
        speed, cores_busy = self._run_for(WINDOW_SECS if secs is None else secs)
        self.speeds.append(speed)
        self._cores_busy.append(cores_busy)

    def _run_for(self, secs: float) -> tuple[float, float]:
        num_steps, passed = 0, 0.0
        began, processor_began = time.perf_counter(), time.process_time()
        while passed < secs:
            execution = next(self._executions)
            num_steps += execution.num_steps
            self._timing.wait_for_device(execution.logs)
            passed = time.perf_counter() - began
        self._planner.pause()
        return num_steps / passed, (time.process_time() - processor_began) / passed

    def _run(self) -> Iterator[Execution]:
        for epoch in itertools.count():
            with self._timing.part(DATA):
                self._source.begin_epoch(epoch)
            yield from self._source.executions(self._function, self._planner, NEVER, self._timing)


class Measurable(Protocol):
    """What takes turns: a `Trial`, in this process or another one."""

    speeds: list[float]

    def warm_up(self, secs: float | None = None) -> None:
        """Traces; does so only once."""

    def measure(self, secs: float | None = None) -> None:
        """Runs one window, and appends its speed, in steps a second."""


class MeasurableInProcess(Measurable, Protocol):
    """A `Trial` in another process, which has other threads."""

    def bits(self) -> str:
        """Returns a digest of what a short training leaves: that of equal bits is equal."""


class Ratio(NamedTuple):
    """How fast one trial was, divided by how fast another one was that took turns with it.

    Attributes:
      value: Median of the ratios in each round: what slows a round down cancels out.
      low: Lower quartile of the same.
      high: Upper quartile.
      usecs: Microseconds of a step, median.
      other_usecs: Of the other trial.
    """

    value: float
    low: float
    high: float
    usecs: float
    other_usecs: float


def run_in_turn(
    trials: Sequence[Measurable], num_rounds: int = NUM_ROUNDS, secs: float | None = None
) -> None:
    """Runs a window of each trial in each round, in alternating order; new trials warm up first."""
    for trial in trials:
        trial.warm_up()
    for number in range(num_rounds):
        for trial in trials if number % 2 else reversed(trials):
            trial.measure(secs)


def ratio_of(trial: Measurable, other: Measurable, num_rounds: int = NUM_ROUNDS) -> Ratio:
    """Returns a trial's speed divided by another's in the rounds of the last `run_in_turn`."""
    mine, others = trial.speeds[-num_rounds:], other.speeds[-num_rounds:]
    pairs = [one / beside for one, beside in zip(mine, others, strict=True)]
    low, value, high = statistics.quantiles(pairs, n=4) if len(pairs) > 1 else (pairs * 3)
    usecs = [1e6 / statistics.median(speeds) for speeds in (mine, others)]
    return Ratio(value, low, high, *usecs)


def make_trial(
    state: TrainState, dataset: tf.data.Dataset, config: TrainConfig, train_step: StepFn
) -> Trial:
    """Returns a training of this config that can be measured. Builds the state."""
    state.build(dataset.element_spec)
    config = as_compiled(config, state.model)
    resident = config.input != "streamed" and may_train_resident(state.strategy, config)
    return Trial(dataset, state, config, train_step, resident=resident)
