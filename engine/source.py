"""Source: the batches of a data set, epoch by epoch; Planner: how many of them at a time."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from keras.src.trainers.data_adapters import tf_dataset_adapter

from engine.config import TrainConfig
from engine.function import StepFunction
from engine.hooks import Hook
from engine.state import Logs, TrainState
from engine.timing import DATA, Timing

# An execution of a tenth of a second costs the host next to nothing, and the bar still moves.
TARGET_EXECUTION_SECS = 0.1
# Measured times mislead while caches warm up: the number of steps grows by this factor at most.
MAX_GROWTH = 8


class Planner:
    """Decides how many steps the next execution does."""

    def __init__(
        self, config: TrainConfig, hooks: Sequence[Hook] = (), state: TrainState | None = None
    ) -> None:
        """Takes what limits the steps of an execution.

        Args:
          config: `steps_per_execution`.
          hooks: Those that have `every_steps`, `max_steps` or `around_execution` are heeded: see
            `engine.hooks.Hook`.
          state: Tells whether its step may run in a loop at all; None: it may.
        """
        self._state = state
        self._fixed = config.steps_per_execution
        periods = (getattr(hook, "every_steps", None) for hook in hooks)
        self._periods: list[int] = [period for period in periods if period]
        self._max_steps = [hook.max_steps for hook in hooks if hasattr(hook, "max_steps")]
        self._around = [h.around_execution for h in hooks if hasattr(h, "around_execution")]
        self._size = 1
        self._started_at: float | None = None

    def next_size(self, num_left: int | None, num_steps_completed: int) -> int:
        """Returns the steps of the next execution, at most `num_left` if that is known."""
        size = self._size if isinstance(self._fixed, str) else int(self._fixed)
        limits = [period - num_steps_completed % period for period in self._periods]
        limits += [] if num_left is None else [num_left]
        limits += [n for limit in self._max_steps if (n := limit(num_steps_completed))]
        limits += [1] if self._state is not None and not self._state.may_loop else []
        return min([size, *limits])

    def around_execution(self, num_steps_completed: int) -> contextlib.ExitStack:
        """Returns the context in which hooks want the next execution to run."""
        with contextlib.ExitStack() as stack:
            for around in self._around:
                stack.enter_context(around(num_steps_completed))
            return stack.pop_all()

    def measure(self, num_steps: int) -> None:
        """Takes the time since the last call as that of the last `num_steps` steps."""
        now = time.perf_counter()
        if self._started_at is not None:
            secs_per_step = max(now - self._started_at, 1e-9) / num_steps
            size = int(TARGET_EXECUTION_SECS / secs_per_step)
            self._size = max(1, min(size, max(num_steps, self._size) * MAX_GROWTH))
        self._started_at = now  # the first execution, which is traced, is not measured

    def pause(self) -> None:
        """Leaves out of the measure what is done until the next call of `measure`."""
        self._started_at = None


class Source:
    """The batches of a data set, epoch by epoch, as Keras's fit takes them."""

    def __init__(
        self,
        dataset: Any,
        strategy: tf.distribute.Strategy,
        steps_per_epoch: int | None,
        *,
        class_weight: Mapping[int, float] | None = None,
        first_epoch: int = 0,
        resident: bool = False,
    ) -> None:
        """Distributes a data set over the replicas.

        Args:
          dataset: As in `fit`.
          strategy: Splits each batch.
          steps_per_epoch: As in `fit`; None: the whole data set.
          class_weight: As in `fit`.
          first_epoch: Index of the epoch with which the first pass over the data begins.
          resident: Whether the compiled function may make the batches itself, if the data set knows
            how; on one device.

        Raises:
          ValueError: If it is no data set, or one without end and without `steps_per_epoch`.
        """
        if not isinstance(dataset, tf.data.Dataset):
            raise ValueError(
                f"The data set is a {type(dataset).__name__}: pass a tf.data.Dataset; "
                "the engine distributes it."
            )
        self._seek = getattr(dataset, "seek", None)
        self._resident = getattr(dataset, "resident", None) if resident else None
        if class_weight is not None:
            dataset = dataset.map(tf_dataset_adapter.make_class_weight_map_fn(class_weight))
        self._asked = steps_per_epoch
        self._first_epoch = first_epoch
        cardinality = int(dataset.cardinality())
        self._cardinality = cardinality if cardinality >= 0 else None
        self._may_end_early = cardinality == tf.data.UNKNOWN_CARDINALITY
        if cardinality == tf.data.INFINITE_CARDINALITY and steps_per_epoch is None:
            raise ValueError("The data set has no end: set steps_per_epoch (or validation_steps).")
        self.element_spec = dataset.element_spec
        self.distributed = strategy.experimental_distribute_dataset(dataset)
        self._num_seen = 0
        self.iterator: Any = None

    @property
    def steps_per_epoch(self) -> int | None:
        """Steps of an epoch; None while nobody can know."""
        return self._asked or self._cardinality

    def begin_epoch(self, epoch: int, step: int = 0) -> None:
        """Starts a pass over the data, or goes on with the one that is not at its end.

        Args:
          epoch: Index of the epoch.
          step: Steps of it that are done already, in a run that is resumed.

        Raises:
          ValueError: If the data set cannot start at `step`.
        """
        # With steps_per_epoch, Keras goes on with the same pass over the data in the next epoch.
        if self.iterator is not None and self._asked is not None:
            return
        if step and self._seek is None:
            raise ValueError(
                f"The run stopped after {step} steps of an epoch, and this data set has no "
                "seek(epoch, step) to go on there: pass the pipeline's data set as it is, or "
                "resume from a checkpoint of the end of an epoch."
            )
        first_epoch, self._num_seen = self._find_position(epoch, step)
        if self._resident is not None:
            self._resident.seek(first_epoch, self._num_seen)
            self.iterator = self._resident
            return
        if self._seek is not None and self._num_seen != self._cardinality:
            self._seek(first_epoch, self._num_seen)
        self.iterator = iter(self.distributed)

    def restart(self) -> None:
        """Lets the next epoch start a new pass over the data."""
        self.iterator = None

    def skip_pass(self, *, num_batches: int = 0) -> None:
        """Starts a pass and leaves it: a data set that reshuffles goes on to its next order.

        Args:
          num_batches: Batches of that pass that are taken.
        """
        if self._seek is None:
            iterator = iter(self.distributed)
            for _ in range(num_batches):
                next(iterator, None)

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
        """Yields the steps done and the logs of each execution until the epoch or the data end.

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
                logs = timing.execute(function, self.iterator, size)
            # The device is waited for only where nobody can know how many batches there are.
            num_done = int(function.num_steps_done) if self._may_end_early else size
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

    def _find_position(self, epoch: int, step: int) -> tuple[int, int]:
        """Returns the epoch in which the pass over the data began, and the steps since."""
        if not (self._seek and self._asked and self._cardinality):
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
                "The data set has no batch. Look at what filters it, and whether it has fewer "
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
            if self._asked is None:
                # Keras makes an iterator here, and another one when the next epoch starts.
                self.skip_pass()
