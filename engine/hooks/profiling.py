"""Profile: traces some steps with TensorFlow's profiler and says where their time went."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import tensorflow as tf

from gradloop.files import json_text, make_directory, write_atomically

from .. import devices
from ..profiling import text
from ..profiling.plot import plot_profile
from ..profiling.summary import summarize
from ..profiling.xplane import MARKER, read_trace
from ..storage.extras import MissingExtra
from .base import Hook, HookInfo, check_period


class Profile(Hook):
    """Profiles some steps, each in an execution of its own, and sums up where their time went.

    Steps count from the start of this `fit`; the first one is 1, as in `profile_batch` of Keras's
    TensorBoard callback. The directory gets `summary.txt`, `profile.json`, `profile.png` and the
    trace itself, below `plugins/profile/`, where TensorBoard looks for it. The numbers of the
    training do not change. Put this hook first: the work of the others then stays out of the trace.

    Args:
      directory: Where all files go; it is created. With several workers, each has a folder of its
        own in it, `worker0`, `worker1`, ...
      first_step: The first step to profile, from 1.
      last_step: The last one. A run that ends earlier leaves what it has.
      line: Called with the summary in a few lines.

    Raises:
      ValueError: If a step is not an integer above 0, the last is before the first, or the
        directory cannot be written.

    Example:
      >>> hook = engine.Profile(tmp_path, 2, 3, line=lambda text: None)
      >>> history = engine.fit(state, train_ds, config, hooks=[hook])
      >>> (tmp_path / "summary.txt").exists()
      True
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        first_step: int,
        last_step: int,
        *,
        line: Callable[[str], object] = print,
    ) -> None:
        check_period("first_step", first_step)
        check_period("last_step", last_step, minimum=first_step)
        self.directory = self._folder = make_directory(directory)
        self.first_step = first_step
        self.last_step = last_step
        self._line = line
        self._num_before = 0
        self._is_running = self._has_run = self._has_steps = False

    def on_train_begin(self, info: HookInfo) -> None:
        """Counts steps from here."""
        self._num_before = info.progress.num_steps_completed
        if not info.state.peers.is_alone:
            self._folder = make_directory(self.directory / f"worker{info.state.peers.worker}")
        self._is_running = self._has_run = self._has_steps = False

    def max_steps(self, num_steps_completed: int) -> int | None:
        """Lets executions end before the first step, and gives each traced step its own."""
        num_done = num_steps_completed - self._num_before
        if num_done < self.first_step - 1:
            return self.first_step - 1 - num_done
        return 1 if num_done < self.last_step else None

    @contextlib.contextmanager
    def around_execution(self, num_steps_completed: int) -> Iterator[None]:
        """Starts the profiler before the first step to trace, and marks each such step."""
        step = num_steps_completed - self._num_before + 1
        if step == self.first_step and not self._has_run:
            _wait_for_devices()
            tf.profiler.experimental.start(str(self._folder))
            self._is_running = self._has_run = True
        if not self._is_running:
            yield
            return
        with tf.profiler.experimental.Trace(MARKER, step_num=step, _r=1):
            self._has_steps = True
            yield

    def on_execution_end(self, info: HookInfo) -> None:
        """Stops the profiler after the last step."""
        if info.progress.num_steps_completed - self._num_before >= self.last_step:
            self._stop()

    def on_train_end(self, info: HookInfo) -> None:
        """Stops the profiler if it still runs, and writes what it saw."""
        self._stop()
        if not self._has_steps:
            self._line(f"no profile: the run ended before step {self.first_step}")
            return
        trace = read_trace(self._folder)
        num_replicas = info.state.strategy.num_replicas_in_sync
        summary = summarize(trace, num_replicas=num_replicas)
        whole = text.format_text(summary)
        write_atomically(self._folder / "summary.txt", lambda file: file.write(whole))
        json = json_text(summary, indent=2) + "\n"
        write_atomically(self._folder / "profile.json", lambda file: file.write(json))
        self._line(text.format_short(summary))
        try:
            plot_profile(trace, summary, self._folder / "profile.png")
        except MissingExtra as error:
            self._line(f"no picture: {error}")

    def _stop(self) -> None:
        if self._is_running:
            self._is_running = False
            _wait_for_devices()
            tf.profiler.experimental.stop()


def _wait_for_devices() -> None:
    # A GPU still works when the call has returned: its work would leak into or out of the trace.
    if devices.has_gpu():
        tf.test.experimental.sync_devices()
