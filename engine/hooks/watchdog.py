"""Watchdog: ends a run that hangs, and says where each thread stands."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator

from gradloop import deadline
from gradloop.usage import EXIT_HANG, EXIT_PEERS_LOST

from .. import timing
from ..workers.cluster import Cluster, cluster_of
from .base import Hook, HookInfo

# Parts of a run in which it may hang: a call of the compiled function, or a wait for the device.
_WATCHED = (timing.DISPATCH, timing.COMPUTE, timing.METRICS, timing.EVALUATION)


class Watchdog(Hook):
    """Ends the process if a call of training or evaluation steps does not end in time.

    Such a call includes the wait for its batches. The process prints a line that says what hangs,
    then the stacks of all threads, on stderr, and ends at once with exit code
    `gradloop.usage.EXIT_HANG`. Nothing is saved then: the newest checkpoint is from before.

    Of several workers, each watches all that it does, because a peer may be what it waits for. The
    line names the workers, and the exit code is `gradloop.usage.EXIT_PEERS_LOST`.

    With one, what does not count: an execution in which a graph is traced, so that a first batch
    that never comes is not noticed (unless `traced_secs` is set), hooks, writers, checkpoints, the
    time between executions, and the time in which the process was suspended. Where XLA compiles, it
    compiles a partial last batch anew, without a trace: the limit must leave time for that.

    Args:
      secs: The limit, in seconds. The loop makes calls of about half a second of a longer
        execution, so it need not be longer than one.
      traced_secs: The limit for an execution in which a graph is traced; None: none.

    Raises:
      ValueError: If a limit is not a number above 0.

    Example:
      >>> history = engine.fit(state, train_ds, config, hooks=[engine.Watchdog(secs=60)])
    """

    def __init__(self, secs: float, *, traced_secs: float | None = None) -> None:
        _check_limit("secs", secs)
        if traced_secs is not None:
            _check_limit("traced_secs", traced_secs)
        self.secs = secs
        self.traced_secs = math.inf if traced_secs is None else traced_secs
        self._cluster = Cluster(("",), 0)
        self._ended: threading.Event | None = None
        self._info: HookInfo | None = None
        self._doing = "training"
        self._num_traces = 0

    def on_train_begin(self, info: HookInfo) -> None:
        """Starts the thread."""
        self._start(info)

    def on_train_end(self, info: HookInfo) -> None:
        """Ends the thread."""
        self._stop()

    def on_eval_begin(self, info: HookInfo) -> None:
        """Starts the thread in `evaluate`."""
        if not info.eval_name:
            self._start(info)

    def on_eval_end(self, info: HookInfo) -> None:
        """Ends it there."""
        if not info.eval_name:
            self._stop()

    @contextlib.contextmanager
    def around_execution(self, num_steps_completed: int) -> Iterator[None]:
        """Notes how many graphs there are before the execution."""
        self._doing = "training"
        self._num_traces = self._count_traces()
        yield

    @contextlib.contextmanager
    def around_eval_execution(self, step: int) -> Iterator[None]:
        """Likewise."""
        self._doing = f"evaluation, after {step} of its steps,"
        self._num_traces = self._count_traces()
        yield

    def _start(self, info: HookInfo) -> None:
        self._stop()  # of an evaluation that an error ended
        clock = timing.current_timing()
        assert clock is not None, "hooks are called inside a timing"
        self._info, self._ended = info, threading.Event()
        self._cluster = cluster_of(info.state.strategy)
        watch = threading.Thread(
            target=self._watch, args=(clock, self._ended), name="watchdog", daemon=True
        )
        watch.start()

    def _stop(self) -> None:
        if self._ended is not None:
            self._ended.set()
            self._ended = None

    def _count_traces(self) -> int:
        # A list: this is another thread, and the run may make a function meanwhile.
        functions = list(self._info.state.functions.values()) if self._info is not None else []
        return sum(len(function.traces) for function in functions)

    def _watch(self, clock: timing.Timing, ended: threading.Event) -> None:
        """Looks several times within the limit whether the run is still in the same call."""
        secs_between = deadline.look_secs(self.secs)
        # Looks are counted and not seconds: in a process that was suspended, both threads were.
        num_looks, last = 0, clock.now_in()
        while not ended.wait(secs_between):
            now = clock.now_in()
            num_looks, last = num_looks + 1 if now == last and self._watches(now[0]) else 0, now
            limit = self.traced_secs if self._has_traced() else self.secs
            if num_looks * secs_between >= limit:
                self._end_process(limit)

    def _watches(self, part: str) -> bool:
        return part in _WATCHED or self._cluster.num_workers > 1

    def _has_traced(self) -> bool:
        return self._count_traces() != self._num_traces

    def _end_process(self, limit: float) -> None:
        assert self._info is not None, "it is set before the thread starts"
        progress, is_one = self._info.progress, self._cluster.num_workers == 1
        code = EXIT_HANG if is_one else EXIT_PEERS_LOST
        who = "" if is_one else f" This is {self._cluster.describe()}."
        began = time.strftime("%H:%M:%S", time.localtime(time.time() - limit))
        deadline.end_process(
            f"{self._doing} hangs since {began}: a call of steps has not ended in {limit:g} s "
            f"(hang_secs). The run is at step {progress.num_steps_completed}, in epoch "
            f"{progress.epoch + 1}; it ends with exit code {code}.{who}",
            code,
        )


def _check_limit(name: str, secs: object) -> None:
    if isinstance(secs, bool) or not isinstance(secs, int | float) or not secs > 0:
        raise ValueError(f"{name} must be a number above 0, not {secs!r}.")
