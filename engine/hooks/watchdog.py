"""Watchdog: ends a run that hangs, and says where each thread stands."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import threading
import time
from collections.abc import Iterator

from gradloop.usage import EXIT_HANG

from .. import timing
from .base import Hook, HookInfo

# Parts of a run in which it may hang: a call of the compiled function, or a wait for the device.
_WATCHED = (timing.DISPATCH, timing.COMPUTE, timing.METRICS, timing.EVALUATION)
_STDERR = 2
_MAX_LOOK_SECS = 0.25
_LOOKS_PER_LIMIT = 8


class Watchdog(Hook):
    """Ends the process if a call of training or evaluation steps does not end in time.

    Such a call includes the wait for its batches. The process prints a line that says what hangs,
    then the stacks of all threads, on stderr, and ends at once with exit code
    `gradloop.usage.EXIT_HANG`. Nothing is saved then: the newest checkpoint is from before.

    What does not count: an execution in which a graph is traced (so a first batch that never comes
    is not noticed), hooks, writers, checkpoints, the time between executions, and the time in which
    the process was suspended. Where XLA compiles, it compiles a partial last batch anew, without a
    trace: the limit must leave time for that.

    Args:
      secs: The limit, in seconds. The loop makes calls of about half a second of a longer
        execution, so it need not be longer than one.

    Raises:
      ValueError: If `secs` is not a number above 0.

    Example:
      >>> history = engine.fit(state, train_ds, config, hooks=[engine.Watchdog(secs=60)])
    """

    def __init__(self, secs: float) -> None:
        if isinstance(secs, bool) or not isinstance(secs, int | float) or not secs > 0:
            raise ValueError(f"secs must be a number above 0, not {secs!r}.")
        self.secs = secs
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
        watch = threading.Thread(
            target=self._watch, args=(clock, self._ended), name="watchdog", daemon=True
        )
        watch.start()

    def _stop(self) -> None:
        if self._ended is not None:
            self._ended.set()
            self._ended = None

    def _count_traces(self) -> int:
        functions = self._info.state.functions.values() if self._info is not None else ()
        return sum(len(function.traces) for function in functions)

    def _watch(self, clock: timing.Timing, ended: threading.Event) -> None:
        """Looks several times within the limit whether the run is still in the same call."""
        secs_between = min(self.secs / _LOOKS_PER_LIMIT, _MAX_LOOK_SECS)
        # Looks are counted and not seconds: in a process that was suspended, both threads were.
        num_looks, last = 0, clock.now_in()
        while not ended.wait(secs_between):
            now = clock.now_in()
            hangs = now == last and now[0] in _WATCHED and not self._has_traced()
            num_looks, last = num_looks + 1 if hangs else 0, now
            if num_looks * secs_between >= self.secs:
                self._end_process()

    def _has_traced(self) -> bool:
        return self._count_traces() != self._num_traces

    def _end_process(self) -> None:
        assert self._info is not None, "it is set before the thread starts"
        progress = self._info.progress
        began = time.strftime("%H:%M:%S", time.localtime(time.time() - self.secs))
        line = (
            f"gradloop: {self._doing} hangs since {began}: a call of steps has not ended in "
            f"{self.secs:g} s (hang_secs). The run is at step {progress.num_steps_completed}, in "
            f"epoch {progress.epoch + 1}; it ends with exit code {EXIT_HANG}. All threads:\n"
        )
        os.write(_STDERR, line.encode())
        faulthandler.dump_traceback(_STDERR, all_threads=True)
        os._exit(EXIT_HANG)
