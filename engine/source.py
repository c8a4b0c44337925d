"""Source: the batches of a dataset, epoch by epoch.

In the way of a batch: `loop` asks a source for the executions of an epoch. The source asks the
planner for their size, calls the compiled function of `step_function`, which takes the batches
itself, and books the time. Where an epoch starts in the data, and how it ends, is as in Keras.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from .agreement import BatchSizeCheck
from .building import batches_in_words, spec_of_replica
from .inputs import Inputs
from .planner import Planner
from .protocols import GraphBatches, Logs, Resident, Seekable
from .step_function import StepFunction
from .timing import DATA, DISPATCH, Timing


class Source:
    """The batches of a dataset, epoch by epoch, as `fit` takes them.

    Args:
      inputs: The data, or a dataset.
      strategy: Splits each batch over the replicas.
      steps_per_epoch: As in `fit`; None: the whole dataset.
      first_epoch: Index of the epoch in which the first pass over the data begins.
      resident: Whether the compiled function makes the batches itself, if the dataset can.
      global_batch_size: Size that the batches must have; None: any.

    Raises:
      ConfigError: If the batches have another size than `global_batch_size`, also later.
      ValueError: If it is no dataset, or endless without `steps_per_epoch`.
    """

    def __init__(
        self,
        inputs: Inputs | tf.data.Dataset,
        strategy: tf.distribute.Strategy,
        steps_per_epoch: int | None,
        *,
        first_epoch: int = 0,
        resident: bool = False,
        global_batch_size: int | None = None,
    ) -> None:
        self._inputs = inputs = inputs if isinstance(inputs, Inputs) else Inputs(inputs)
        dataset = inputs.dataset
        self._seekable = dataset if isinstance(dataset, Seekable) else None
        self._resident: GraphBatches | None = None
        if resident and isinstance(dataset, Resident):
            self._resident = dataset.resident
        self._batch_size = BatchSizeCheck(dataset, global_batch_size)
        self._asked = steps_per_epoch
        self._first_epoch = first_epoch
        self._cardinality = inputs.num_batches
        self._may_end_early = inputs.num_batches is None and not inputs.is_endless
        if inputs.is_endless and steps_per_epoch is None:
            raise ValueError("The dataset has no end: set steps_per_epoch (or validation_steps).")
        self.element_spec = spec_of_replica(dataset.element_spec, strategy.num_replicas_in_sync)
        self.distributed = dataset
        if not inputs.is_distributed:
            with batches_in_words(self.element_spec):
                self.distributed = strategy.experimental_distribute_dataset(dataset)
        self._batches_per_step = 1
        self._num_seen = 0
        self.iterator: Any = None

    @property
    def steps_per_epoch(self) -> int | None:
        """Steps of an epoch; None while they are unknown."""
        return self._asked or self._cardinality

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
        self._inputs.on_epoch_begin()
        # With steps_per_epoch, Keras continues the same pass over the data in the next epoch.
        if self.iterator is not None and self._asked is not None:
            return
        if step and self._seekable is None:
            raise ValueError(
                f"The run stopped after {step} steps of an epoch, and this dataset has no "
                "seek(epoch, step) to continue there: pass the pipeline's dataset as it is, or "
                "resume from a checkpoint of the end of an epoch."
            )
        first_epoch, self._num_seen = self._find_position(epoch, step)
        if self._resident is not None:
            self._resident.seek(first_epoch, self._num_seen * self._batches_per_step)
            self.iterator = self._resident
            return
        if self._seekable is not None and self._num_seen != self._cardinality:
            self._seekable.seek(first_epoch, self._num_seen * self._batches_per_step)
        self.iterator = iter(self.distributed)

    def restart(self) -> None:
        """Lets the next epoch start a new pass over the data."""
        self.iterator = None

    def reset(self, *, takes_batch: bool) -> None:
        """Does what `fit` does to the data before the first epoch: what reshuffles moves on.

        Args:
          takes_batch: Whether fit takes a batch to build the model, as it does under a strategy.
        """
        if takes_batch and self._seekable is None:
            self._inputs.on_epoch_begin()
            next(iter(self.distributed), None)
        self._inputs.on_epoch_end()

    def executions(
        self,
        function: StepFunction,
        planner: Planner,
        should_stop: Callable[[], bool],
        timing: Timing,
        *,
        step: int = 0,
        num_steps_completed: int = 0,
    ) -> Iterator[tuple[int, Logs]]:
        """Yields the steps and the logs of each execution until the epoch or the data ends.

        Args:
          function: Does the steps.
          planner: Says how many at a time, and measures.
          should_stop: Asked after each execution.
          timing: Takes the time of each execution.
          step: Steps of the epoch that are done already.
          num_steps_completed: Steps of the run that are done already.
        """
        while (num_left := self._num_left(step)) != 0:
            size = planner.next_size(num_left, num_steps_completed)
            with planner.around_execution(num_steps_completed):
                logs, num_examples = self._execute(function, size, timing)
            # Waits for the device, so only where the number of batches is unknown.
            num_done = int(function.num_steps_done) if self._may_end_early else size
            self._batch_size.see(
                num_examples,
                is_first=self._num_seen == 0,
                may_be_last=self._may_be_last(num_done),
            )
            step += num_done
            num_steps_completed += num_done
            self._num_seen += num_done
            if num_done:
                yield num_done, logs
                planner.measure(num_done)
            if num_done < size:
                break
            if should_stop():
                return
        with timing.part(DATA):
            self._end_epoch(step)

    def _execute(self, function: StepFunction, num_steps: int, timing: Timing) -> tuple[Logs, int]:
        """Calls the compiled function: the one place where the host hands work to the device.

        Returns:
          The logs, and the examples of the first batch (0 where they are not counted).
        """
        num_traces = function.num_traces
        with timing.part(DISPATCH):
            logs = function(self.iterator, tf.constant(num_steps))
            graph_secs, waited_secs, num_examples = function.measured.numpy().tolist()
        has_traced = function.num_traces > num_traces
        timing.book_execution(num_steps, graph_secs, waited_secs, has_traced=has_traced)
        return logs, int(num_examples)

    def _may_be_last(self, num_done: int) -> bool:
        """Returns whether the first batch of an execution may have been the last of the data."""
        if self._cardinality is None:
            return num_done <= 1
        return self._num_seen + 1 >= self._cardinality

    def _find_position(self, epoch: int, step: int) -> tuple[int, int]:
        """Returns the epoch in which the pass over the data began, and the steps since."""
        if not (self._seekable and self._asked and self._cardinality):
            return epoch, step
        epochs_per_pass = math.ceil(self._cardinality / self._asked)
        num_before = (epoch - self._first_epoch) % epochs_per_pass
        return epoch - num_before, num_before * self._asked + step

    def _num_left(self, step: int) -> int | None:
        limits = [self._asked - step] if self._asked else []
        if self._cardinality is not None:
            limits.append(self._cardinality - self._num_seen)
        return min(limits) if limits else None

    def _end_epoch(self, step: int) -> None:
        if step == self._num_seen == 0:
            raise ValueError(
                "The dataset has no batch. Look at what filters it, and whether it has fewer "
                "examples than a batch with drop_remainder=True."
            )
        if self._asked and step < self._asked:
            warnings.warn(
                f"The data ended after {step} of {self._asked} steps of this epoch: the next epoch "
                "starts from its beginning. Use dataset.repeat(), or a smaller steps_per_epoch.",
                stacklevel=2,
            )
            self.restart()
        elif self._cardinality is not None and self._num_seen >= self._cardinality:
            self.restart()
            if self._asked is None and self._seekable is None:
                # Keras creates an iterator here, and another one when the next epoch starts.
                iter(self.distributed)
        self._inputs.on_epoch_end()
