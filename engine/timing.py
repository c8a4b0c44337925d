"""Where the wall time of a run goes: parts that exclude one another and sum to it."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import itertools
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import numpy as np

COMPUTE, DATA, DISPATCH, METRICS = "compute", "data", "dispatch", "metrics"
CHECKPOINTS, EVALUATION, TRACING, SETUP = "checkpoints", "evaluation", "tracing", "setup"
OTHER = "other"
HOOKS, WRITERS = "hooks/", "writers/"
# Within an evaluation, these are what it consists of.
_OF_STEPS = {COMPUTE, DATA, DISPATCH, METRICS}
PERCENTILES = (50, 95, 99)
# Shares below this are not named in the line of a summary.
MIN_SHARE_SHOWN = 0.005
_MAX_SAMPLES = 1 << 14

_current: contextvars.ContextVar[Timing | None] = contextvars.ContextVar("timing", default=None)


class Timing:
    """The parts of one run's wall time, from its creation until `stop`.

    To enter a part pauses the one outside, so that each second is counted once. The parts:

    - compute: the graph runs, or the device is waited for; metrics are updated there.
    - data: the graph, or the loop, does nothing but wait for a batch. What is fetched while a step
      runs costs nothing. With a GPU, the wait within an execution is not seen: it is in compute.
    - dispatch: the rest of the call of the compiled function.
    - metrics: resets, results, copies to the host.
    - hooks/<class>, writers/<class>, checkpoints: as they are called.
    - evaluation: all of it but hooks and tracing.
    - tracing: Python's, the graph optimiser's and the compiler's work for a new graph, and what its
      first run takes longer than others.
    - setup: what comes before the first epoch. other: the loop itself.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Starts the clock, in the part "other"."""
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
        """Seconds since the creation, or until `stop`; up to the last change of the part."""
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
        """Moves the seconds of the last `dispatch` part to what the compiled function did in them.

        Executions of training alone are samples of percentiles, and only if they did not trace.

        Args:
          num_steps: Steps of the execution.
          graph_secs: Seconds that the graph took, as `StepFunction` measures them.
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
        """Waits until the values of an execution are computed; the host copies none but one."""
        with self.part(COMPUTE):
            began = self._since
            for value in itertools.islice(logs.values(), 1):
                np.asarray(value)
        if self._execution is not None:
            secs, num_steps = self._execution
            self._execution = secs + self._since - began, num_steps

    def stop(self) -> None:
        """Counts the time until now, and moves what first runs took longer than others."""
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
          `wall_secs`; `parts`: name -> `secs`, `share` of the wall time, `usecs_per_step`, the
          largest first; `execution_secs` and `step_secs`: `p50`, `p95`, `p99`, or None for a run
          that only traced.
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

    def enter(self, name: str) -> None:
        """Begins a part; `part` does it for a `with`."""
        self._switch()
        self._stack.append(name)

    def leave(self) -> None:
        """Ends the innermost part."""
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
    """Numbers of which an even choice is kept, so that a long run needs no more memory."""

    def __init__(self, max_samples: int = _MAX_SAMPLES) -> None:
        """Takes the number above which every other sample is dropped."""
        self._max_samples = max_samples
        self._values = array("d")
        self._period = 1
        self._num_skipped = 0

    def add(self, value: float) -> None:
        """Takes one more."""
        self._num_skipped += 1
        if self._num_skipped < self._period:
            return
        self._num_skipped = 0
        self._values.append(value)
        if len(self._values) > self._max_samples:
            self._values, self._period = self._values[::2], 2 * self._period

    def percentile(self, percent: float) -> float | None:
        """Returns the number that `percent` of the samples do not exceed; None without samples."""
        return float(np.percentile(self._values, percent)) if self._values else None


class _Part:
    """A context; one object for each part of a run, since making one costs more than entering."""

    __slots__ = ("_name", "_timing")

    def __init__(self, timing: Timing, name: str) -> None:
        self._timing = timing
        self._name = name

    def __enter__(self) -> None:
        self._timing.enter(self._name)

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timing.leave()


@contextlib.contextmanager
def current(timing: Timing) -> Iterator[None]:
    """Lets `part` find the timing, from whatever is called within."""
    token = _current.set(timing)
    try:
        yield
    finally:
        _current.reset(token)


def part(name: str) -> contextlib.AbstractContextManager[None]:
    """Returns a context in which a run's time counts for `name`; outside hooks, it does nothing.

    For hooks and writers, which are not told of the run's `Timing`.
    """
    timing = _current.get()
    return contextlib.nullcontext() if timing is None else timing.part(name)


def format_line(timing: Mapping[str, Any]) -> str:
    """Returns what `Timing.to_dict` says, in one line: large parts, and percentiles."""
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
