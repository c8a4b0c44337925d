"""Where the wall time of a run goes: parts that exclude one another and sum to it."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import itertools
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

COMPUTE, DATA, DISPATCH, METRICS = "compute", "data", "dispatch", "metrics"
CHECKPOINTS, EVALUATION, TRACING, SETUP = "checkpoints", "evaluation", "tracing", "setup"
WORKERS = "workers"
OTHER = "other"
HOOKS, WRITERS = "hooks/", "writers/"
# Within an evaluation, these count as evaluation.
_OF_STEPS = {COMPUTE, DATA, DISPATCH, METRICS}
PERCENTILES = (50, 95, 99)
# Smaller shares are left out of a summary's line.
MIN_SHARE_SHOWN = 0.005
_MAX_SAMPLES = 1 << 14

_current: contextvars.ContextVar[Timing | None] = contextvars.ContextVar("timing", default=None)


class Timing:
    """The parts of one run's wall time, from its creation until `stop`.

    Entering a part pauses the one outside, so that each second counts once. The parts:

    - compute: the graph runs, or the host waits for the device. Metrics are updated there.
    - data: the graph, or the loop, only waits for a batch. A batch that is fetched while a step
      runs costs nothing. With a GPU, an execution sees the wait for its first batch alone; the
      others are in compute.
    - dispatch: the rest of the call of the compiled function.
    - metrics: resets, results, copies to the host.
    - hooks/<class>, writers/<class>, checkpoints: the calls of these.
    - evaluation: all of it except hooks and tracing.
    - tracing: what Python, the graph optimizer and the compiler do for a new graph, and how much
      longer its first run takes than others.
    - workers: with several, the wait for the others where all must agree on what comes next.
    - setup: what comes before the first epoch. other: the loop itself.

    Args:
      clock: Returns seconds.

    Attributes:
      secs: Part to its seconds so far, the current part up to the last change.
      execution_secs: Seconds of each execution of training that traced nothing.
      step_secs: The same, divided by the steps of the execution.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.secs: dict[str, float] = collections.defaultdict(float)
        self.execution_secs = Samples()
        self.step_secs = Samples()
        self._clock = clock
        self._parts: dict[str, _Part] = {}
        self._stack = [OTHER]
        self._since = clock()
        self._last_secs = 0.0  # between the last two changes of the part
        self._execution: tuple[float, int] | None = None  # the last one: its seconds, its steps
        self._first_runs: list[tuple[float, int]] = []  # likewise, of each new graph

    @property
    def wall_secs(self) -> float:
        """Seconds from the creation to the last change of the part, or to `stop`."""
        return sum(self.secs.values())

    def part(self, name: str) -> _Part:
        """Returns a context in which time counts for `name`."""
        if name in _OF_STEPS and EVALUATION in self._stack:
            name = EVALUATION
        if name not in self._parts:
            self._parts[name] = _Part(self, name)
        return self._parts[name]

    def book_execution(
        self, num_steps: int, graph_secs: float, waited_secs: float, *, has_traced: bool
    ) -> None:
        """Moves the seconds of a call from `dispatch` to what the compiled function did in them.

        Call it right after the `dispatch` part ends. Only executions of training that traced
        nothing are samples of the percentiles.

        Args:
          num_steps: Steps of the execution.
          graph_secs: Seconds in the graph; see `StepFunction.measured`.
          waited_secs: Seconds of these in which the graph only waited for a batch.
          has_traced: Whether a new graph was traced.
        """
        self._add_sample()
        secs = self._last_secs
        is_training = EVALUATION not in self._stack
        if is_training:
            self._move(DISPATCH, COMPUTE, graph_secs - waited_secs)
            self._move(DISPATCH, DATA, waited_secs)
        if has_traced:
            self._move(DISPATCH if is_training else EVALUATION, TRACING, secs - graph_secs)
            if is_training:
                self._first_runs.append((graph_secs - waited_secs, num_steps))
        elif is_training:
            self._execution = secs, num_steps

    def wait_for_device(self, logs: Mapping[str, Any]) -> None:
        """Waits until the logs of an execution are computed; copies one of them to the host."""
        with self.part(COMPUTE):
            began = self._since
            for value in itertools.islice(logs.values(), 1):
                np.asarray(value)
        if self._execution is not None:
            secs, num_steps = self._execution
            self._execution = secs + self._since - began, num_steps

    def stop(self) -> None:
        """Counts the time until now, and moves the extra time of first runs to tracing."""
        self._switch()
        self._add_sample()
        typical = self.step_secs.percentile(50)
        while self._first_runs and typical is not None:
            secs, num_steps = self._first_runs.pop()
            self._move(COMPUTE, TRACING, max(0.0, secs - typical * num_steps))

    def to_dict(self, num_steps: int) -> dict[str, Any]:
        """Returns what summary.json holds.

        Args:
          num_steps: Training steps of the run.

        Returns:
          `wall_secs`; `parts`: name to `secs`, `share` of the wall time and `usecs_per_step`, the
          largest first; `execution_secs` and `step_secs`: `p50`, `p95` and `p99` in seconds, or
          None for a run that only traced.
        """
        wall_secs = self.wall_secs
        parts = sorted(self.secs.items(), key=lambda item: -item[1])
        return {
            "wall_secs": wall_secs,
            "parts": {
                name: {
                    "secs": secs,
                    "share": secs / wall_secs if wall_secs else 0.0,
                    "usecs_per_step": 1e6 * secs / num_steps if num_steps else None,
                }
                for name, secs in parts
            },
            "execution_secs": _percentiles(self.execution_secs),
            "step_secs": _percentiles(self.step_secs),
        }

    def now_in(self) -> tuple[str, float]:
        """Returns the current part, and the clock's time at its last change. From any thread."""
        name = self._stack[-1]  # before the time: a change in between makes the part look newer
        return name, self._since

    def enter(self, name: str) -> None:
        """Begins a part; `part` calls it."""
        self._switch()
        self._stack.append(name)

    def leave(self) -> None:
        """Ends the innermost part; `part` calls it."""
        self._switch()
        self._stack.pop()

    def _switch(self) -> None:
        now = self._clock()
        self._last_secs = now - self._since
        self.secs[self._stack[-1]] += self._last_secs
        self._since = now

    def _add_sample(self) -> None:
        if self._execution is not None:
            secs, num_steps = self._execution
            self.execution_secs.add(secs)
            self.step_secs.add(secs / num_steps)
            self._execution = None

    def _move(self, source: str, target: str, secs: float) -> None:
        # The graph's clock and the host's may differ by some microseconds: no part is negative.
        secs = max(0.0, min(secs, self.secs[source]))
        self.secs[source] -= secs
        self.secs[target] += secs


class Samples:
    """Numbers of which evenly spaced ones are kept, so that a long run needs no more memory.

    Args:
      max_samples: Above this number, every other sample is dropped.
    """

    def __init__(self, max_samples: int = _MAX_SAMPLES) -> None:
        self._max_samples = max_samples
        self._values = array("d")
        self._period = 1
        self._num_skipped = 0

    def add(self, value: float) -> None:
        """Adds a number."""
        self._num_skipped += 1
        if self._num_skipped < self._period:
            return
        self._num_skipped = 0
        self._values.append(value)
        if len(self._values) > self._max_samples:
            self._values, self._period = self._values[::2], 2 * self._period

    def percentile(self, percent: float) -> float | None:
        """Returns what `percent` of the samples do not exceed; None without samples."""
        return float(np.percentile(self._values, percent)) if self._values else None


class _Part:
    """The context of a part; one object per part, because creating one costs more than entering."""

    __slots__ = ("_name", "_timing")

    def __init__(self, timing: Timing, name: str) -> None:
        self._timing = timing
        self._name = name

    def __enter__(self) -> None:
        self._timing.enter(self._name)

    def __exit__(self, *error: object) -> None:
        self._timing.leave()


@contextlib.contextmanager
def current(timing: Timing) -> Iterator[None]:
    """Makes a timing the one that `part` counts for, in this context."""
    token = _current.set(timing)
    try:
        yield
    finally:
        _current.reset(token)


def current_timing() -> Timing | None:
    """Returns the timing of the run that calls a hook; None outside hooks."""
    return _current.get()


def part(name: str) -> contextlib.AbstractContextManager[None]:
    """Returns a context in which the time of the run counts for `name`.

    For hooks and writers, which have no `Timing` of their own. Outside hooks it does nothing.
    """
    timing = current_timing()
    return contextlib.nullcontext() if timing is None else timing.part(name)


def format_line(timing: Mapping[str, Any]) -> str:
    """Returns `Timing.to_dict` in one line: the large parts, and the percentiles."""
    shares = {name: part["share"] for name, part in timing["parts"].items()}
    shown = [
        f"{100 * share:.0f} % {name}" for name, share in shares.items() if share >= MIN_SHARE_SHOWN
    ]
    percentiles = timing["execution_secs"]
    if percentiles is not None:
        texts = (f"{name} {_format_secs(secs)}" for name, secs in percentiles.items())
        shown[-1] += " - execution " + ", ".join(texts)
    return ", ".join(shown)


def _format_secs(secs: float) -> str:
    return f"{secs:.2f} s" if secs >= 1 else f"{1e3 * secs:.3g} ms"


def _percentiles(samples: Samples) -> dict[str, float] | None:
    values = {f"p{percent}": samples.percentile(percent) for percent in PERCENTILES}
    return None if None in values.values() else values  # type: ignore[return-value]
