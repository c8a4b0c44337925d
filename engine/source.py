"""Source: the batches of a dataset, epoch by epoch.

In the way of a batch: `loop` asks a source for the executions of an epoch. The source asks the
planner for their size, calls the compiled function of `step_function`, which takes the batches
itself, and books the time. Where an epoch starts in the data, and how it ends, is as in Keras.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator
from typing import Any

import tensorflow as tf

from .agreement import BatchSizeCheck
from .building import batches_in_words
from .inputs import Inputs
from .passes import NO_BATCH, Passes, Replay, warn_of_early_end
from .planner import Execution, Planner, Stops
from .predict_function import BatchFunction
from .protocols import GraphBatches, Logs, Resident, Seekable
from .replicas.split_batches import split
from .timing import DATA, DISPATCH, Timing


class Source:
    """The batches of a dataset, epoch by epoch, as `fit` takes them.

    Args:
      inputs: The data, or a dataset.
      strategy: Splits each batch over the replicas.
      steps_per_epoch: As in `fit`; None: the whole dataset.
      first_epoch: Index of the epoch in which the first pass over the data begins.
      resident: Whether the compiled function makes the batches itself, if the dataset can.
      ordered: Whether it slices arrays in memory, if the dataset is of some, as they lie.
      batch_size: Checks the size of the batches; None: they may have any.

    Raises:
      ConfigError: If the batches have another size than they must, also later.
      ValueError: If it is no dataset, or endless without `steps_per_epoch`.
    """

    def __init__(
        self, inputs: Inputs | tf.data.Dataset, strategy: tf.distribute.Strategy,
        steps_per_epoch: int | None, *, first_epoch: int = 0, resident: bool = False,
        ordered: bool = False, batch_size: BatchSizeCheck | None = None,
    ) -> None:  # fmt: skip
        self._inputs = inputs = inputs if isinstance(inputs, Inputs) else Inputs(inputs)
        self._arrays = inputs.array_batches() if ordered else None
        dataset = inputs.dataset if self._arrays is None else None
        self._seekable = dataset if isinstance(dataset, Seekable) else None
        self._batch_size = batch_size or BatchSizeCheck(dataset)
        self._asked = steps_per_epoch
        self._first_epoch = first_epoch
        self._cardinality = inputs.num_batches
        if inputs.is_endless and steps_per_epoch is None:
            raise ValueError("The dataset has no end: set steps_per_epoch (or validation_steps).")
        batches: Any = inputs if self._arrays is None else self._arrays
        self.element_spec = batches.spec_of_replica(strategy.num_replicas_in_sync)
        with batches_in_words(self.element_spec):
            self._passes = Passes(inputs, strategy)
        self._resident: GraphBatches | None = None
        if resident and isinstance(dataset, Resident):
            self._resident = split(dataset.resident, strategy, self.distributed.element_spec)
        self._batches_per_step, self._num_seen = 1, 0
        self._is_within_epoch = False  # of a run that is resumed: its first epoch has begun
        self._has_ended = False
        self.iterator: Any = None

    @property
    def distributed(self) -> Any:
        """The dataset, split."""
        return self._passes.distributed

    @property
    def steps_per_epoch(self) -> int | None:
        """Steps of an epoch; None while they are unknown."""
        return self._asked or self._cardinality

    @property
    def seeks(self) -> bool:
        """Whether it can start at any step, also where it has been."""
        return any(one is not None for one in (self._seekable, self._resident, self._arrays))

    def group(self, batches_per_step: int) -> None:
        """Counts steps of several batches; those left at the end of the data are dropped."""
        self._batches_per_step = batches_per_step
        if self._cardinality is not None:
            self._cardinality //= batches_per_step

    def begin_epoch(self, epoch: int, step: int = 0) -> None:
        """Starts a pass over the data, or continues the one that is not at its end.

        Args:
          epoch: Index of the epoch.
          step: Steps of it that are done already, in a run that is resumed.

        Raises:
          ValueError: If the dataset cannot start at `step`.
        """
        if self._is_within_epoch:
            self._is_within_epoch = False
            return
        self._has_ended = False
        self._passes.begin_epoch()
        if self._arrays is not None:
            self._arrays = self._inputs.array_batches()  # they may be others by now
            self.iterator, self._num_seen = self._arrays, step
            return
        # With steps_per_epoch, Keras continues the same pass over the data in the next epoch.
        if self.iterator is not None and self._asked is not None:
            return
        if step and self._seekable is None:
            raise self._passes.error_within_epoch(step)
        first_epoch, self._num_seen = self._find_position(epoch, step)
        if self._resident is not None:
            self._resident.seek(first_epoch, self._num_seen * self._batches_per_step)
            self.iterator = self._resident
            return
        if self._seekable is not None and self._num_seen != self._cardinality:
            self._seekable.seek(first_epoch, self._num_seen * self._batches_per_step)
        self.iterator = self._passes.iterate()

    def restart(self) -> None:
        """Lets the next epoch start a new pass over the data."""
        self.iterator = None

    def end_epoch(self, step: int) -> None:
        """Ends the epoch after its last step, where a hook's stop came before its data's end."""
        if not self._has_ended and self._num_left(step) == 0:
            self._end_epoch(step)

    def end_evaluation(self) -> None:
        """Lets the next evaluation start a new pass."""
        is_whole = self._has_ended and self._num_seen == self._cardinality
        # After a whole pass, Keras has made an iterator for another epoch, and does not use it.
        if is_whole and self._asked is not None and not self.seeks:
            self._passes.iterate()
        self.restart()

    def reset(self, *, takes_batch: bool) -> None:
        """Does what Keras does to data at first: under a strategy, it takes a batch to build."""
        if takes_batch and not self.seeks:
            self._passes.begin_epoch()
            # With steps_per_epoch, Keras has an iterator from the evaluation before.
            if self._asked is None or not self._passes.has_any:
                self._passes.iterate(1)
        self._passes.end_epoch()

    def why_not_resumable(self) -> str | None:
        """Returns why a run cannot be resumed exactly with this dataset; None if it can."""
        return None if self.seeks else self._passes.why_not_resumable()

    def state(self) -> dict[str, Any]:
        """Returns what a resumed run needs to come to the same place in the data."""
        if self.seeks:
            return {}
        num_seen = None if self.iterator is None else self._num_seen
        return self._passes.state() | {"num_seen": num_seen, "has_ended": self._has_ended}

    def count_by(self, clock: Iterator[int]) -> None:
        """Numbers what is done with the data by a clock that other data have too."""
        self._passes.clock = clock

    def may_resume(self, state: dict[str, Any]) -> bool:
        """Returns whether it can come to the place that `state` told of; {} tells of none."""
        return bool(state) and not self.seeks and self._passes.may_resume(state)

    def resume(self, state: dict[str, Any], *, step: int = 0) -> Replay[None]:
        """Comes to that place, in which `step` steps are done of the epoch; for `replay_all`."""
        # The pass of an epoch that a hook has ended is over, unless the next epoch continues it.
        is_open = state["num_seen"] is not None and (step > 0 or self._asked is not None)
        self.iterator = yield from self._passes.resume(state, is_open=is_open)
        self._num_seen = state["num_seen"] or 0
        self._is_within_epoch = step > 0
        self._has_ended = state["has_ended"]

    def executions(
        self, function: BatchFunction, planner: Planner, stops: Stops, timing: Timing, *,
        step: int = 0, num_steps_completed: int = 0, excluded: Collection[int] = (),
    ) -> Iterator[Execution]:  # fmt: skip
        """Yields each execution until the epoch or the data ends.

        Args:
          function: Does the steps.
          planner: Says how many at a time, and measures.
          stops: Asked after each execution, and within it.
          timing: Takes the time of each execution.
          step: Steps of the epoch that are done already.
          num_steps_completed: Steps of the run that are done already.
          excluded: Steps of the run, counted from 1, whose batches are not trained on.
        """
        if self._has_ended:
            return
        while (num_left := self._num_left(step)) != 0:
            until_excluded = [n - 1 - num_steps_completed for n in excluded]
            size = planner.next_size(num_left, num_steps_completed)
            size = min([size, *(n for n in until_excluded if n > 0)])
            if 0 in until_excluded:
                size, done = 1, self._leave_out()
            else:
                with planner.around_execution(num_steps_completed):
                    done = self._execute(function, size, planner, stops, timing)
            step += done.num_steps
            num_steps_completed += done.num_steps
            if done.num_steps:
                yield done
                planner.measure(done.num_steps)
            if done.num_cut or (done.num_steps == size and stops.after_execution()):
                return
            if done.num_steps < size:
                break
        with timing.part(DATA):
            self._end_epoch(step)

    def _leave_out(self) -> Execution:
        """Takes the batches of a step, and does not train on them."""
        if self._resident is not None:
            self._resident.advance(tf.constant(self._batches_per_step))
        else:
            for _ in range(self._batches_per_step):
                next(self.iterator, None)
        self._num_seen += 1
        return Execution(1, {}, is_left_out=True)

    def _execute(
        self, function: BatchFunction, size: int, planner: Planner, stops: Stops, timing: Timing
    ) -> Execution:
        """Performs an execution, in calls short enough for a stop in between."""
        num_done = 0
        logs: Logs = {}
        while num_done < size:
            wanted = planner.next_call(size - num_done)
            num_called, new_logs = self._call(function, wanted, planner, timing)
            num_done += num_called
            logs = new_logs if num_called else logs
            if num_called < wanted:
                break
            if num_done < size and stops.at_once():
                return Execution(num_done, logs, num_cut=size - num_done)
        return Execution(num_done, logs)

    def _call(
        self, function: BatchFunction, num_steps: int, planner: Planner, timing: Timing
    ) -> tuple[int, Logs]:
        """Calls the compiled function, and returns how many steps it did and their logs.

        The one place where the host hands work to the device.
        """
        if self._arrays is not None:
            self.iterator = self._arrays.at(self._num_seen * self._batches_per_step)
        num_traces, started_at = function.num_traces, time.perf_counter()
        with timing.part(DISPATCH):
            logs = function(self.iterator, tf.constant(num_steps))
            graph_secs, waited_secs, num_examples = function.measured.numpy().tolist()
        has_traced = function.num_traces > num_traces
        timing.book_execution(num_steps, graph_secs, waited_secs, has_traced=has_traced)
        if not has_traced:
            planner.measure_call(num_steps, time.perf_counter() - started_at)
        # Waits for the device, so only where the number of batches is not certain.
        num_done = int(function.num_steps_done) if self._inputs.may_end_early else num_steps
        # The first batch may have been the last.
        ends = (
            num_done <= 1 if self._cardinality is None else self._num_seen + 1 >= self._cardinality
        )
        self._batch_size.see(int(num_examples), is_first=self._num_seen == 0, may_be_last=ends)
        self._num_seen += num_done
        if not self.seeks:
            self._passes.take(num_done * self._batches_per_step)
        return num_done, logs

    def _find_position(self, epoch: int, step: int) -> tuple[int, int]:
        """Returns the epoch in which the pass over the data began, and the steps since."""
        if not (self._seekable and self._asked and self._cardinality):
            return epoch, step
        epochs_per_pass = math.ceil(self._cardinality / self._asked)
        num_before = (epoch - self._first_epoch) % epochs_per_pass
        return epoch - num_before, num_before * self._asked + step

    def _num_left(self, step: int) -> int | None:
        limits = [self._asked - step] if self._asked else []
        limits += [] if self._cardinality is None else [self._cardinality - self._num_seen]
        return min(limits, default=None)

    def _end_epoch(self, step: int) -> None:
        self._has_ended = True
        if step == self._num_seen == 0:
            raise ValueError(NO_BATCH)
        if step < (length := self.steps_per_epoch or 0):
            warn_of_early_end(step, length, is_asked=self._asked is not None)
            self.restart()
        elif self._cardinality is not None and self._num_seen >= self._cardinality:
            self.restart()
            if self._asked is None and not self.seeks:
                self._passes.iterate()  # as Keras does, beside the one of the next epoch
        self._passes.end_epoch()
