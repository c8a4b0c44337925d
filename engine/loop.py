"""fit, evaluate, predict: epochs, executions, hooks, history."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters import tf_dataset_adapter

from engine import step as step_lib
from engine.config import TrainConfig
from engine.function import (
    StepFn,
    StepFunction,
    make_eval_function,
    make_predict_function,
    make_train_function,
)
from engine.hooks import Hook, HookInfo
from engine.state import Logs, TrainState

# An execution of a tenth of a second costs the host next to nothing, and the bar still moves.
TARGET_EXECUTION_SECS = 0.1
# Measured times mislead while caches warm up: the number of steps grows by this factor at most.
MAX_GROWTH = 8


@dataclasses.dataclass
class History:
    """What a run of `fit` leaves behind.

    Attributes:
      history: Keras's keys (`loss`, `accuracy`, `val_loss`, ...), one value an epoch.
      epoch: Index of each epoch.
      epoch_secs: Wall seconds of each epoch's training, without validation.
      epoch_steps: Steps of each epoch.
      num_traces: Graphs traced: 1 for training, and 1 for validation if there was any.
      stop_reason: What a hook gave as its reason to stop early; None if the run went to its end.
    """

    history: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    epoch: list[int] = dataclasses.field(default_factory=list)
    epoch_secs: list[float] = dataclasses.field(default_factory=list)
    epoch_steps: list[int] = dataclasses.field(default_factory=list)
    num_traces: int = 0
    stop_reason: str | None = None

    def add_epoch(self, progress: Any, secs: float, logs: Logs) -> None:
        """Appends one epoch."""
        self.epoch.append(progress.epoch)
        self.epoch_steps.append(progress.step)
        self.epoch_secs.append(secs)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)


def fit(  # noqa: PLR0913 - fit's own words, all but three by keyword
    state: TrainState,
    dataset: tf.data.Dataset,
    config: TrainConfig,
    *,
    validation_data: tf.data.Dataset | None = None,
    hooks: Sequence[Hook] = (),
    train_step: StepFn = step_lib.train_step,
    eval_step: StepFn = step_lib.eval_step,
    class_weight: Mapping[int, float] | None = None,
    resume: bool = False,
) -> History:
    """Trains the model, as `keras.Model.fit` does, with the same numbers.

    Context: cross-replica, on the host. In short:

        for each epoch:
          reset the metrics
          for each execution: train_function(iterator, num_steps); hooks
          read the metrics; validate; hooks

    Args:
      state: Made inside the scope of the strategy to train with.
      dataset: Batches of `x`, `(x, y)` or `(x, y, sample_weight)`; the leading dimension is the
        global batch size. One that has a method `seek(epoch, step)` is told where each pass starts.
      config: Read: epochs, initial_epoch, steps_per_epoch, steps_per_execution, validation_freq,
        validation_steps, jit_compile. With `steps_per_epoch`, a longer data set goes on where it
        stopped in the next epoch, and a shorter one ends the epoch with a warning, as in Keras.
      validation_data: Like `dataset`; evaluated after every `validation_freq` epochs.
      hooks: Called in this order at each moment.
      train_step: `(state, batch) -> logs`, called in replica context.
      eval_step: Likewise.
      class_weight: Class index to weight, as in Keras; other classes weigh 1.
      resume: Go on from `state.progress`, which a checkpoint has restored.

    Returns:
      The history, with the keys that Keras uses.

    Raises:
      ValueError: If the data set has no end and there is no `steps_per_epoch`, or no batch at all.
    """
    _check_model_step(state.model, "train_step", train_step is step_lib.train_step)
    _check_model_step(state.model, "test_step", eval_step is step_lib.eval_step)
    run = _Run(state, hooks)
    run.begin(config, resume=resume)
    run.info.has_validation = validation_data is not None
    source = _Source(dataset, state.strategy, config.steps_per_epoch, class_weight)
    state.build(source.element_spec)
    state.progress.steps_per_epoch = source.steps_per_epoch
    function = _function(make_train_function, train_step, state, config)
    num_traces_before = function.num_traces
    planner = _Planner(config, hooks)
    evaluation = None
    if validation_data is not None:
        evaluation = _Evaluation(state, validation_data, config, eval_step)
    try:
        run.call("on_train_begin")
        for epoch in range(state.progress.epoch, config.epochs):
            secs = _train_epoch(run, epoch, source, function, planner)
            epoch_logs = run.epoch_logs()
            is_due = (epoch + 1) % config.validation_freq == 0 and not run.info.stops_now
            if evaluation is not None and is_due:
                val_logs = evaluation.run(run)
                epoch_logs |= {f"val_{name}": value for name, value in val_logs.items()}
            if run.info.stops_now:
                break
            run.end_epoch(secs, epoch_logs)
            if run.info.stop_reason is not None:
                break
        if not run.info.stops_now:
            _finalize(state)
    finally:
        run.history.num_traces = function.num_traces - num_traces_before
        run.history.num_traces += evaluation.num_traces if evaluation else 0
        run.history.stop_reason = run.info.stop_reason
        run.end()
    return run.history


def evaluate(
    state: TrainState,
    dataset: tf.data.Dataset,
    config: TrainConfig,
    *,
    eval_step: StepFn = step_lib.eval_step,
    hooks: Sequence[Hook] = (),
) -> Logs:
    """Returns the loss and the metrics over a data set, as `keras.Model.evaluate` does.

    Context: cross-replica, on the host.

    Args:
      state: Its metrics are reset first.
      dataset: As in `fit`.
      config: Read: validation_steps, steps_per_execution, jit_compile.
      eval_step: `(state, batch) -> logs`, called in replica context.
      hooks: Their `on_eval_begin` and `on_eval_end` are called.

    Returns:
      Name to number, with Keras's names in Keras's order.
    """
    run = _Run(state, hooks)
    return _Evaluation(state, dataset, config, eval_step).run(run)


def predict(state: TrainState, dataset: tf.data.Dataset, config: TrainConfig) -> Any:
    """Returns the model's outputs over a data set, in the data's order, as `keras.Model.predict`.

    Context: cross-replica, on the host.

    Args:
      state: Its model predicts; nothing is changed.
      dataset: As in `fit`; targets and weights are ignored.
      config: Read: jit_compile.

    Returns:
      NumPy array of shape `[num_examples, ...]`, or the model's structure of them.

    Raises:
      ValueError: If the data set has no batch.
    """
    distributed = state.strategy.experimental_distribute_dataset(dataset)
    function = make_predict_function(state, state.strategy, config, distributed.element_spec)
    outputs: list[Any] = []
    pending = None
    for batch in distributed:
        # The device works on this batch while the host copies the outputs of the one before.
        dispatched = function(batch)
        if pending is not None:
            outputs.append(tf.nest.map_structure(np.asarray, pending))
        pending = dispatched
    if pending is None:
        raise ValueError("The data set has no batch: there is nothing to predict.")
    outputs.append(tf.nest.map_structure(np.asarray, pending))
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts, axis=0), *outputs)


class _Run:
    """One call of `fit` or `evaluate`: the hooks, what they are told, and the history."""

    def __init__(self, state: TrainState, hooks: Sequence[Hook]) -> None:
        self.state = state
        self.info = HookInfo(state, state.progress)
        self.history = History()
        self.step_logs: Logs = {}
        self._hooks = hooks

    def call(self, moment: str) -> None:
        for hook in self._hooks:
            getattr(hook, moment)(self.info)

    def end(self) -> None:
        # Each hook closes what it opened, even if the one before it fails.
        with contextlib.ExitStack() as stack:
            for hook in reversed(self._hooks):
                stack.callback(hook.on_train_end, self.info)

    def begin(self, config: TrainConfig, *, resume: bool) -> None:
        progress = self.state.progress
        if not resume:
            progress.epoch = progress.num_epochs_completed = config.initial_epoch
            progress.step = 0
        elif progress.epoch < progress.num_epochs_completed:  # saved at the end of an epoch
            progress.epoch, progress.step = progress.num_epochs_completed, 0
        progress.num_epochs = config.epochs

    def set_logs(self, logs: Logs, step: int, execution_steps: int = 0) -> None:
        self.info.logs, self.info.logs_step = logs, step
        self.info.execution_steps = execution_steps

    def epoch_logs(self) -> Logs:
        """Returns the metrics' results and what else the last step returned."""
        return _to_host(_merge_results(self.step_logs, self.state))

    def end_epoch(self, secs: float, logs: Logs) -> None:
        progress = self.state.progress
        progress.num_epochs_completed = progress.epoch + 1
        logs = dict(sorted(logs.items()))  # the order of Keras's history
        self.set_logs(logs, progress.num_steps_completed)
        self.history.add_epoch(progress, secs, logs)
        self.call("on_epoch_end")


class _Planner:
    """Decides how many steps the next execution does."""

    def __init__(self, config: TrainConfig, hooks: Sequence[Hook] = ()) -> None:
        self._fixed = config.steps_per_execution
        periods = (getattr(hook, "every_steps", None) for hook in hooks)
        self._periods: list[int] = [period for period in periods if period]
        self._size = 1
        self._started_at: float | None = None

    def next_size(self, num_left: int | None, num_steps_completed: int) -> int:
        size = self._size if isinstance(self._fixed, str) else int(self._fixed)
        # A hook that works every N steps finds an execution's end at each multiple of N.
        limits = [period - num_steps_completed % period for period in self._periods]
        limits += [] if num_left is None else [num_left]
        return min([size, *limits])

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


class _Source:
    """The batches of a data set, epoch by epoch, as Keras's fit takes them."""

    def __init__(
        self,
        dataset: Any,
        strategy: tf.distribute.Strategy,
        steps_per_epoch: int | None,
        class_weight: Mapping[int, float] | None = None,
    ) -> None:
        self._seek = getattr(dataset, "seek", None)
        if class_weight is not None:
            dataset = dataset.map(tf_dataset_adapter.make_class_weight_map_fn(class_weight))
        self._asked = steps_per_epoch
        if not isinstance(dataset, tf.data.Dataset):
            raise ValueError(
                f"The data set is {dataset!r}: pass a tf.data.Dataset; the engine distributes it."
            )
        cardinality = int(dataset.cardinality())
        self._cardinality = cardinality if cardinality >= 0 else None
        self._may_end_early = cardinality == tf.data.UNKNOWN_CARDINALITY
        if cardinality == tf.data.INFINITE_CARDINALITY and steps_per_epoch is None:
            raise ValueError("The data set has no end: set steps_per_epoch (or validation_steps).")
        self.element_spec = dataset.element_spec
        self._dataset = strategy.experimental_distribute_dataset(dataset)
        self._num_seen = 0
        self.iterator: Any = None

    @property
    def steps_per_epoch(self) -> int | None:
        return self._asked or self._cardinality

    def begin_epoch(self, epoch: int, step: int = 0) -> None:
        # With steps_per_epoch, Keras goes on with the same pass over the data in the next epoch.
        if self.iterator is None or self._asked is None:
            self._num_seen = 0
            if self._seek is not None:
                first_epoch, self._num_seen = self._find_position(epoch, step)
                self._seek(first_epoch, self._num_seen)
            self.iterator = iter(self._dataset)

    def executions(
        self,
        function: StepFunction,
        planner: _Planner,
        should_stop: Callable[[], bool],
        *,
        step: int = 0,
        num_steps_completed: int = 0,
    ) -> Iterator[tuple[int, Logs]]:
        """Yields the steps done and the logs of each execution until the epoch or the data end."""
        while (num_left := self._num_left(step)) != 0:
            size = planner.next_size(num_left, num_steps_completed)
            logs = function(self.iterator, tf.constant(size))
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
        self._end_epoch(step)

    def _find_position(self, epoch: int, step: int) -> tuple[int, int]:
        """Returns the epoch in which the pass over the data began, and the steps since."""
        if not (self._asked and self._cardinality):
            return epoch, step
        epochs_per_pass = math.ceil(self._cardinality / self._asked)
        num_before = epoch % epochs_per_pass
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
            self.iterator = None
        elif self._cardinality is not None and self._num_seen >= self._cardinality:
            self.iterator = None


class _Evaluation:
    """A data set and the compiled function that evaluates it; made once for a run."""

    def __init__(
        self, state: TrainState, dataset: Any, config: TrainConfig, eval_step: StepFn
    ) -> None:
        self._config = config
        self._source = _Source(dataset, state.strategy, config.validation_steps)
        state.build(self._source.element_spec)
        self.function = _function(make_eval_function, eval_step, state, config)
        self._num_traces_before = self.function.num_traces

    @property
    def num_traces(self) -> int:
        return self.function.num_traces - self._num_traces_before

    def run(self, run: _Run) -> Logs:
        run.call("on_eval_begin")
        run.state.reset_metrics()
        self._source.iterator = None
        self._source.begin_epoch(0)
        logs: Logs = {}
        planner = _Planner(self._config)
        # A stop that was asked for in training does not cut this short: fit validates then, too.
        executions = self._source.executions(self.function, planner, lambda: run.info.stops_now)
        for _, step_logs in executions:
            logs = step_logs
        logs = _to_host(_merge_results(logs, run.state))
        run.set_logs(logs, run.state.progress.num_steps_completed)
        run.call("on_eval_end")
        return logs


def _train_epoch(
    run: _Run, epoch: int, source: _Source, function: StepFunction, planner: _Planner
) -> float:
    """Trains until the epoch or the data end or a hook asks to stop; returns the wall seconds."""
    progress = run.state.progress
    step = progress.step if progress.epoch == epoch else 0
    progress.epoch, progress.step = epoch, step
    run.state.reset_metrics()
    run.set_logs({}, progress.num_steps_completed)
    run.call("on_epoch_begin")
    started_at = time.perf_counter()
    source.begin_epoch(epoch, step)
    pending: tuple[Logs, int] | None = None
    executions = source.executions(
        function,
        planner,
        lambda: run.info.stop_reason is not None,
        step=step,
        num_steps_completed=progress.num_steps_completed,
    )
    for num_done, logs in executions:
        progress.step += num_done
        progress.num_steps_completed += num_done
        if pending is not None:
            # One execution late: these values are computed, so that nothing waits for the device.
            run.set_logs(_to_host(pending[0]), pending[1])
        run.info.execution_steps = num_done
        pending = (logs, progress.num_steps_completed)
        run.step_logs = logs
        run.call("on_execution_end")
    planner.pause()
    if run.step_logs:
        _wait_for_device(run.step_logs)
    return time.perf_counter() - started_at


def _function(
    make: Callable[..., StepFunction], step: StepFn, state: TrainState, config: TrainConfig
) -> StepFunction:
    # As in Keras, a second call of fit or evaluate on the same state does not trace again.
    key = (make.__name__, step, config.jit_compile)
    if key not in state.functions:
        state.functions[key] = make(step, state, state.strategy, config)
    function: StepFunction = state.functions[key]
    return function


def _check_model_step(model: keras.Model, name: str, is_default: bool) -> None:
    if is_default and getattr(type(model), name) is not getattr(keras.Model, name):
        raise ValueError(
            f"{type(model).__name__} overrides {name}, which only keras.Model.fit calls: pass it "
            "as a step of your own, `(state, batch) -> logs` (docs/custom_steps.md)."
        )


def _finalize(state: TrainState) -> None:
    # Only the average of the weights, if the optimizer keeps one, is written at the end.
    state.optimizer.finalize_variable_values(state.model.trainable_variables)
    for optimizer in state.optimizers[1:]:
        optimizer.finalize_variable_values(optimizer._trainable_variables)


def _merge_results(step_logs: Logs, state: TrainState) -> Logs:
    results = state.metrics_result()
    return {name: results.get(name, value) for name, value in step_logs.items()}


def _to_host(logs: Logs) -> Logs:
    """Returns floats, and arrays where a result is no scalar, sorted by name as in Keras."""
    values = {name: np.asarray(keras.ops.convert_to_tensor(v)) for name, v in logs.items()}
    return {name: float(v) if v.ndim == 0 else v for name, v in sorted(values.items())}


def _wait_for_device(logs: Logs) -> None:
    for value in logs.values():
        np.asarray(value)
