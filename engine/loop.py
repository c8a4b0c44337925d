"""fit, evaluate, predict: epochs, executions, hooks, history."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from engine import step as step_lib
from engine.config import ConfigError, TrainConfig
from engine.function import (
    StepFn,
    StepFunction,
    make_eval_function,
    make_predict_function,
    make_train_function,
)
from engine.history import History, Run
from engine.hooks import Hook
from engine.source import Planner, Source
from engine.state import Logs, TrainState
from engine.timing import DATA, EVALUATION, SETUP


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
        validation_steps, jit_compile, max_retraces. With `steps_per_epoch`, a longer data set goes
        on where it stopped in the next epoch, and a shorter one ends the epoch with a warning, as
        in Keras.
      validation_data: Like `dataset`; evaluated after every `validation_freq` epochs.
      hooks: Called in this order at each moment.
      train_step: `(state, batch) -> logs`, called in replica context.
      eval_step: Likewise.
      class_weight: Class index to weight, as in Keras; a class that is not named weighs 1, but
        the highest class must be named.
      resume: Go on from `state.progress`, which a checkpoint has restored.

    Returns:
      The history, with the keys that Keras uses.

    Raises:
      ValueError: If the data set has no end and there is no `steps_per_epoch`, or no batch at all;
        if the model brings a `train_step` of its own; if the run cannot be resumed with this data.
    """
    _check_hooks(hooks)
    _check_model_step(state.model, "train_step", train_step is step_lib.train_step)
    _check_model_step(state.model, "test_step", eval_step is step_lib.eval_step)
    run = Run(state, hooks)
    with run.timing.part(SETUP):
        run.begin(config, resume=resume)
        run.info.has_validation = validation_data is not None
        source = _make_source(state, dataset, config, class_weight)
        state.build(source.element_spec)
        state.progress.steps_per_epoch = source.steps_per_epoch
        function = _function(make_train_function, train_step, state, config)
        run.watch(function)
        planner = Planner(config, hooks, state)
        evaluation = None
        if validation_data is not None:
            evaluation = _Evaluation(state, validation_data, config, eval_step)
            run.watch(evaluation.function)
        if state.has_scope:
            # Under a strategy, fit takes a batch to build the model before the first epoch starts.
            source.skip_pass(num_batches=1)
    try:
        run.call("on_train_begin")
        for epoch in range(state.progress.epoch, config.epochs):
            _train_epoch(run, epoch, source, function, planner)
            _end_epoch(run, config, evaluation)
            if run.info.stop_reason is not None:
                break
        if not run.info.stops_now:
            _finalize(state)
    except BaseException:
        # An execution may have been cut short: the weights may be ahead of the progress.
        run.info.has_failed = True
        raise
    finally:
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
    run = Run(state, hooks)
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
      ValueError: If the data set has no batch, or no end.
    """
    batches = Source(dataset, state.strategy, None).distributed
    function = make_predict_function(state, state.strategy, config, batches.element_spec)
    outputs: list[Any] = []
    pending = None
    for batch in batches:
        # The device works on this batch while the host copies the outputs of the one before.
        dispatched = function(batch)
        if pending is not None:
            outputs.append(tf.nest.map_structure(np.asarray, pending))
        pending = dispatched
    if pending is None:
        raise ValueError("The data set has no batch: there is nothing to predict.")
    outputs.append(tf.nest.map_structure(np.asarray, pending))
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts, axis=0), *outputs)


class _Evaluation:
    """A data set and the compiled function that evaluates it; made once for a run."""

    def __init__(
        self, state: TrainState, dataset: Any, config: TrainConfig, eval_step: StepFn
    ) -> None:
        self._config = config
        self._source = Source(dataset, state.strategy, config.validation_steps)
        state.build(self._source.element_spec)
        self.function = _function(make_eval_function, eval_step, state, config)

    def run(self, run: Run) -> Logs:
        with run.timing.part(EVALUATION):
            run.call("on_eval_begin")
            run.reset_metrics()
            self._source.restart()
            self._source.begin_epoch(0)
            logs: Logs = {}
            # A stop that was asked for in training does not cut this short: nor does it fit's.
            executions = self._source.executions(
                self.function, Planner(self._config), lambda: run.info.stops_now, run.timing
            )
            for _, step_logs in executions:
                logs = step_logs
            logs = run.results(logs)
            run.set_logs(logs, run.state.progress.num_steps_completed)
            run.call("on_eval_end")
        return logs


def _train_epoch(
    run: Run, epoch: int, source: Source, function: StepFunction, planner: Planner
) -> None:
    """Trains until the epoch or the data end or a hook asks to stop."""
    progress = run.state.progress
    step = progress.step if progress.epoch == epoch else 0
    progress.epoch, progress.step = epoch, step
    if step == 0:  # else the checkpoint has restored them with the rest
        run.reset_metrics()
    run.set_logs({}, progress.num_steps_completed)
    run.call("on_epoch_begin")
    started_at = time.perf_counter()
    with run.timing.part(DATA):
        source.begin_epoch(epoch, step)
    pending: tuple[Logs, int] | None = None
    executions = source.executions(
        function,
        planner,
        lambda: run.info.stop_reason is not None,
        run.timing,
        step=step,
        num_steps_completed=progress.num_steps_completed,
    )
    for num_done, logs in executions:
        progress.step += num_done
        progress.num_steps_completed += num_done
        run.history.num_steps += num_done
        if pending is not None:
            # One execution late: these values are computed, so that nothing waits for the device.
            run.set_logs(run.fetch(pending[0]), pending[1])
        run.info.execution_steps = num_done
        pending = (logs, progress.num_steps_completed)
        run.step_logs = logs
        run.memory.sample(run.history.num_steps)
        run.call("on_execution_end")
    planner.pause()
    run.timing.wait_for_device(run.step_logs or {})
    run.history.train_secs += time.perf_counter() - started_at


def _end_epoch(run: Run, config: TrainConfig, evaluation: _Evaluation | None) -> None:
    """Validates if it is time to, and ends the epoch; not if the run stops immediately."""
    logs = run.epoch_logs()
    is_due = (run.state.progress.epoch + 1) % config.validation_freq == 0
    if evaluation is not None and is_due and not run.info.stops_now:
        val_logs = evaluation.run(run)
        logs |= {f"val_{name}": value for name, value in val_logs.items()}
    if not run.info.stops_now:
        run.end_epoch(logs)


def _make_source(
    state: TrainState, dataset: Any, config: TrainConfig, class_weight: Mapping[int, float] | None
) -> Source:
    # A strategy splits batches, a GPU wants them early, class weights are mapped: tf.data's.
    may_be_resident = (
        hasattr(dataset, "resident")
        and not state.has_scope
        and class_weight is None
        and not tf.config.list_logical_devices("GPU")
    )
    if config.input == "resident" and not may_be_resident:
        raise ConfigError(
            "input='resident' is for the pipeline's data sets, on one CPU, without a strategy and "
            "without class weights: use input='auto'."
        )
    return Source(
        dataset,
        state.strategy,
        config.steps_per_epoch,
        class_weight=class_weight,
        first_epoch=config.initial_epoch,
        resident=may_be_resident and config.input != "streamed",
    )


def _function(
    make: Callable[..., StepFunction], step: StepFn, state: TrainState, config: TrainConfig
) -> StepFunction:
    # As in Keras, a second call of fit or evaluate on the same state does not trace again.
    key = (make.__name__, step, config.jit_compile, config.numerics)
    if key not in state.functions:
        state.functions[key] = make(step, state, state.strategy, config)
    function: StepFunction = state.functions[key]
    function.max_retraces = config.max_retraces
    return function


def _check_hooks(hooks: Sequence[Hook]) -> None:
    for hook in hooks:
        if not isinstance(hook, Hook):
            raise ValueError(
                f"{hook!r} is no hook: pass instances of engine.Hook, or engine.LambdaHook with "
                "functions. Keras's callbacks do not fit: their methods take other arguments."
            )


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
