"""fit and evaluate: epochs, executions, hooks, validation.

In the way of a batch: the top, and the place to start reading. An epoch is a number of executions,
which `source` performs; between them, on the host, the loop counts and `session` tells the hooks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from . import step as step_lib
from .agreement import check_model_steps
from .config import ConfigError, TrainConfig
from .history import History
from .hooks.base import Hook
from .planner import Planner
from .protocols import Logs, Resident
from .session import Session
from .source import Source
from .state import TrainState
from .step_function import StepFn, StepFunction, make_eval_function, make_train_function
from .timing import DATA, EVALUATION, SETUP


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
    """Trains the model as `keras.Model.fit` does, with the same numbers.

    Context: cross-replica, on the host. In short:

        for each epoch:
          reset the metrics
          for each execution: train_function(iterator, num_steps); hooks
          read the metrics; validate; hooks

    Args:
      state: Created inside the scope of the strategy to train with.
      dataset: Batches of `x`, `(x, y)` or `(x, y, sample_weight)`; the leading dimension is
        `global_batch_size`. See `engine.protocols` for what else a dataset may offer.
      config: All fields. With `steps_per_epoch`, a longer dataset continues in the next epoch where
        it stopped, and a shorter one ends the epoch with a warning, as in Keras.
      validation_data: Like `dataset`; evaluated after every `validation_freq` epochs.
      hooks: Called in this order at each moment.
      train_step: `(state, batch) -> logs`, called in replica context.
      eval_step: Likewise.
      class_weight: Class index to weight, as in Keras; a class without one weighs 1, but the
        highest class must have one.
      resume: Continue at `state.progress`, which a checkpoint has restored.

    Returns:
      The history, with the keys that Keras uses.

    Raises:
      ConfigError: If the config does not agree with the state, the dataset or the process.
      ValueError: If the dataset has no batch, or no end and there is no `steps_per_epoch`; if the
        model has a `train_step` of its own; if the run cannot be resumed with this dataset.

    Example:
      >>> history = engine.fit(state, train_ds, engine.TrainConfig(epochs=2))
      >>> len(history.history["loss"])
      2
    """
    check_model_steps(
        state.model,
        train_step=train_step is step_lib.train_step,
        test_step=eval_step is step_lib.eval_step,
    )
    session = Session(state, config, hooks)
    with session.timing.part(SETUP):
        state.progress.begin(config.initial_epoch, config.epochs, resume=resume)
        session.info.has_validation = validation_data is not None
        source = _make_source(state, dataset, config, class_weight)
        state.build(source.element_spec)
        state.progress.steps_per_epoch = source.steps_per_epoch
        function = _function(make_train_function, train_step, state, config)
        session.watch(function)
        planner = Planner(config, hooks, state)
        evaluation = None
        if validation_data is not None:
            evaluation = _Evaluation(state, validation_data, config, eval_step)
            session.watch(evaluation.function)
        if state.has_scope:
            # Under a strategy, fit takes a batch to build the model before the first epoch starts.
            source.skip_pass(num_batches=1)
    try:
        session.call("on_train_begin")
        for epoch in range(state.progress.epoch, config.epochs):
            _train_epoch(session, epoch, source, function, planner)
            _end_epoch(session, config, evaluation)
            if session.info.stop_reason is not None:
                break
        if not session.info.stops_now:
            _finalize(state)
    except BaseException:
        # An execution may have been cut short: the weights may be ahead of the progress.
        session.info.has_failed = True
        raise
    finally:
        session.end()
    return session.history


def evaluate(
    state: TrainState,
    dataset: tf.data.Dataset,
    config: TrainConfig,
    *,
    eval_step: StepFn = step_lib.eval_step,
    hooks: Sequence[Hook] = (),
) -> Logs:
    """Returns the loss and the metrics over a dataset, as `keras.Model.evaluate` does.

    Context: cross-replica, on the host.

    Args:
      state: Its metrics are reset first.
      dataset: As in `fit`.
      config: Read: `validation_steps`, `steps_per_execution`, `jit_compile`, `jit_scope`.
      eval_step: `(state, batch) -> logs`, called in replica context.
      hooks: Their `on_eval_begin` and `on_eval_end` are called.

    Returns:
      Name to number, with Keras's names in Keras's order.

    Raises:
      ConfigError: If the config does not agree with the state or the process.

    Example:
      >>> sorted(engine.evaluate(state, train_ds, config))
      ['loss']
    """
    session = Session(state, config, hooks)
    return _Evaluation(state, dataset, config, eval_step).run(session)


class _Evaluation:
    """A dataset and the compiled function that evaluates it; one for a whole run."""

    def __init__(
        self, state: TrainState, dataset: Any, config: TrainConfig, eval_step: StepFn
    ) -> None:
        self._config = config
        self._source = Source(dataset, state.strategy, config.validation_steps)
        state.build(self._source.element_spec)
        self.function = _function(make_eval_function, eval_step, state, config)

    def run(self, session: Session) -> Logs:
        with session.timing.part(EVALUATION):
            session.call("on_eval_begin")
            session.reset_metrics()
            self._source.restart()
            self._source.begin_epoch(0)
            logs: Logs = {}
            # As in fit, a stop that was requested in training does not cut the validation short.
            executions = self._source.executions(
                self.function, Planner(self._config), lambda: session.info.stops_now, session.timing
            )
            for _, step_logs in executions:
                logs = step_logs
            logs = session.results(logs)
            session.set_logs(logs, session.state.progress.num_steps_completed)
            session.call("on_eval_end")
        return logs


def _train_epoch(
    session: Session, epoch: int, source: Source, function: StepFunction, planner: Planner
) -> None:
    """Trains until the epoch or the data ends, or a hook requests a stop."""
    progress = session.state.progress
    step = progress.step if progress.epoch == epoch else 0
    progress.epoch, progress.step = epoch, step
    if step == 0:  # else the checkpoint has restored them with the rest
        session.reset_metrics()
    session.set_logs({}, progress.num_steps_completed)
    session.call("on_epoch_begin")
    started_at = time.perf_counter()
    with session.timing.part(DATA):
        source.begin_epoch(epoch, step)
    pending: tuple[Logs, int] | None = None
    executions = source.executions(
        function,
        planner,
        lambda: session.info.stop_reason is not None,
        session.timing,
        step=step,
        num_steps_completed=progress.num_steps_completed,
    )
    for num_done, logs in executions:
        progress.step += num_done
        progress.num_steps_completed += num_done
        session.history.num_steps += num_done
        if pending is not None:
            # One execution late: these values are computed, and nothing waits for the device.
            session.set_logs(session.fetch(pending[0]), pending[1])
        session.info.execution_steps = num_done
        pending = (logs, progress.num_steps_completed)
        session.step_logs = logs
        session.memory.sample(session.history.num_steps)
        session.call("on_execution_end")
    planner.pause()
    session.timing.wait_for_device(session.step_logs or {})
    session.history.train_secs += time.perf_counter() - started_at


def _end_epoch(session: Session, config: TrainConfig, evaluation: _Evaluation | None) -> None:
    """Validates if that is due, and ends the epoch; neither if the run stops immediately."""
    logs = session.epoch_logs()
    is_due = (session.state.progress.epoch + 1) % config.validation_freq == 0
    if evaluation is not None and is_due and not session.info.stops_now:
        val_logs = evaluation.run(session)
        logs |= {f"val_{name}": value for name, value in val_logs.items()}
    if not session.info.stops_now:
        session.end_epoch(logs)


def _make_source(
    state: TrainState, dataset: Any, config: TrainConfig, class_weight: Mapping[int, float] | None
) -> Source:
    # Splitting over replicas, prefetching to a GPU and mapping class weights are tf.data's work.
    may_be_resident = (
        isinstance(dataset, Resident)
        and not state.has_scope
        and class_weight is None
        and not tf.config.list_logical_devices("GPU")
    )
    if config.input == "resident" and not may_be_resident:
        raise ConfigError(
            "input='resident' is for the pipeline's datasets, on one CPU, without a strategy and "
            "without class weights: use input='auto'."
        )
    return Source(
        dataset,
        state.strategy,
        config.steps_per_epoch,
        class_weight=class_weight,
        first_epoch=config.initial_epoch,
        resident=may_be_resident and config.input != "streamed",
        global_batch_size=config.global_batch_size,
    )


def _function(
    make: Callable[..., StepFunction], step: StepFn, state: TrainState, config: TrainConfig
) -> StepFunction:
    # As in Keras, a second call of fit or evaluate on the same state does not trace again.
    key = (make, step, config.jit_compile, config.jit_scope, config.numerics)
    if key not in state.functions:
        state.functions[key] = make(step, state, state.strategy, config)
    function: StepFunction = state.functions[key]
    function.max_retraces = config.max_retraces
    return function


def _finalize(state: TrainState) -> None:
    # Writes the moving average of the weights, if the optimizer keeps one, to the weights.
    state.optimizer.finalize_variable_values(state.model.trainable_variables)
    for optimizer in state.optimizers[1:]:
        optimizer.finalize_variable_values(optimizer._trainable_variables)
