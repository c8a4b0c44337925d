"""fit: epochs, executions, hooks, validation.

In the way of a batch: the top, and the place to start reading. An epoch is a number of executions,
which `source` performs; between them, on the host, the loop counts and `session` tells the hooks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from . import step as step_lib
from .agreement import BatchSizeCheck, check_compiled, check_window, within_limits
from .arguments import check_resume, check_step, refuse_unknown
from .config import TrainConfig
from .continuation import Continuation
from .evaluation import Validation
from .history import History
from .hooks.base import Hook
from .inputs import Inputs, split_validation
from .options import ConfigError
from .planner import Planner, Stops
from .protocols import Resident
from .replicated_step import StepFn
from .session import Session
from .source import Source
from .state import TrainState
from .step_errors import explained
from .step_function import StepFunction, cached_function, make_train_function
from .strategy import may_train_resident
from .timing import DATA, SETUP
from .workers.slices import of_context


def fit(  # noqa: PLR0913 - fit's own words, all but three by keyword
    state: TrainState,
    x: Any,
    config: TrainConfig,
    *,
    y: Any = None,
    sample_weight: Any = None,
    validation_data: Any = None,
    validation_split: float = 0.0,
    shuffle: bool | str = True,
    hooks: Sequence[Hook] | None = (),
    train_step: StepFn = step_lib.train_step,
    eval_step: StepFn = step_lib.eval_step,
    class_weight: Mapping[int, float] | None = None,
    resume: bool = False,
    **unknown: Any,
) -> History:
    """Trains the model as `keras.Model.fit` does, with the same numbers.

    Context: cross-replica, on the host. In short:

        for each epoch:
          reset the metrics
          for each execution: train_function(iterator, num_steps); hooks
          read the metrics; validate; hooks

    Args:
      state: Created inside the scope of the strategy to train with.
      x: What `keras.Model.fit` takes: a `tf.data.Dataset` of batches of `x`, `(x, y)` or
        `(x, y, sample_weight)`, with `global_batch_size` as leading dimension (see
        `engine.protocols` for what else a dataset may offer); a distributed dataset; arrays, which
        are batched by `global_batch_size` (without one, into `steps_per_epoch` batches, or by 32)
        in the order of fit; a PyDataset, a generator, a torch DataLoader; a function of
        `tf.distribute.InputContext` to a dataset of batches of one replica, called on each worker,
        such as to read its own files.
      y: Targets, where `x` is of arrays.
      sample_weight: A weight an example, likewise.
      config: All fields. With `steps_per_epoch`, a longer dataset continues in the next epoch where
        it stopped, and a shorter one ends the epoch with a warning, as in Keras.
      validation_data: Like `x`, or `(x, y)` or `(x, y, sample_weight)` of arrays; evaluated after
        every `validation_freq` epochs, and every `validate_every_steps` steps within them. Several
        by name: `{"val": ..., "test": ...}`, whose names begin the keys of the history.
      validation_split: Share of the arrays, their end, that is validated on instead.
      shuffle: Whether arrays have another order than their own, as in `fit`.
      hooks: Called in this order at each moment.
      train_step: `(state, batch) -> logs`, called in replica context.
      eval_step: Likewise.
      class_weight: Class index to weight, as in Keras; a class without one weighs 1.
      resume: Continue at `state.progress`, which a checkpoint has restored.
      **unknown: Refused: the error says where that argument of Keras's belongs here.

    Returns:
      The history, with the keys that Keras uses.

    Raises:
      TypeError: If an argument is unknown.
      ConfigError: If the config does not agree with the state, the dataset or the process.
      ValueError: If the dataset has no batch, or no end and there is no `steps_per_epoch`; if the
        run cannot be resumed with this dataset.

    Example:
      >>> history = engine.fit(state, train_ds, engine.TrainConfig(epochs=2))
      >>> len(history.history["loss"])
      2
    """
    refuse_unknown(fit, unknown)
    session = Session(state, config, hooks)
    _check_training(session, train_step, resume=resume)
    config = within_limits(session.config)
    with session.timing.part(SETUP):
        state.progress.begin(config.initial_epoch, config.epochs, resume=resume)
        arrays = of_context(x, state.strategy), y, sample_weight
        arrays, validation_data = split_validation(arrays, validation_split, validation_data)
        inputs = Inputs(
            *arrays, batch_size=config.global_batch_size, shuffle=shuffle,
            class_weight=class_weight, steps_per_epoch=config.steps_per_epoch,
        )  # fmt: skip
        source, function, planner = parts = _make_parts(session, inputs, config, train_step)
        validation = Validation(session, validation_data, config, eval_step)
        continuation = Continuation(session, source, function, validation, config, resume=resume)
    try:
        state.model.stop_training = False
        session.call("on_train_begin")
        continuation.restore()
        with session.consensus.on_sizes(planner):
            while session.has_epochs_left():
                _train_epoch(session, state.progress.num_epochs_completed, parts, validation)
                _end_epoch(session, function, validation, continuation)
        session.save_point(is_last=True)
        if not session.info.stops_now:
            _finalize(state)
    except BaseException:
        # An execution may have been cut short: the weights may be ahead of the progress.
        session.info.has_failed = True
        raise
    finally:
        session.end()
    return session.history


def _check_training(session: Session, train_step: StepFn, *, resume: bool) -> None:
    """Refuses what cannot be trained, before anything is changed."""
    check_compiled(session.state)
    check_window(session.config, session.state)
    check_step(train_step, "train_step")
    check_resume(resume)


class _Parts(NamedTuple):
    """What trains: batches, the compiled function, and how many steps it does at a time."""

    source: Source
    function: StepFunction
    planner: Planner


def _make_parts(
    session: Session, inputs: Inputs, config: TrainConfig, train_step: StepFn
) -> _Parts:
    state = session.state
    source = _make_source(state, inputs, config)
    state.build(source.element_spec)
    function = cached_function(make_train_function, train_step, state, config)
    source.group(function.count_batches(source.element_spec))
    state.progress.steps_per_epoch = source.steps_per_epoch
    session.watch(function)
    planner = Planner(config, session.hooks, state, function=function)
    return _Parts(source, function, planner)


def _train_epoch(session: Session, epoch: int, parts: _Parts, validation: Validation) -> None:
    """Trains until the epoch or the data ends, or a hook requests a stop."""
    source, function, planner = parts
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
    if session.owes_validation:
        validation.run_within_epoch()
    executions = source.executions(
        function,
        planner,
        Stops(session.stops_training, session.stops_at_once),
        session.timing,
        step=step,
        num_steps_completed=progress.num_steps_completed,
        excluded=session.excluded,
    )
    planner.finish_execution(session.num_cut)
    # A validation that is owed and was cut short again comes first.
    if session.skips_steps or (session.owes_validation and session.info.stops_now):
        executions = iter(())
    session.skips_steps = False
    for execution in explained(executions, session.state, source):
        session.count(execution)
        if execution.num_cut or execution.is_left_out:
            continue
        session.call("on_execution_end")
        if validation.run_within_epoch():
            planner.pause()
        session.save_point()
    planner.pause()
    if not session.info.stops_now:
        with session.timing.part(DATA):
            source.end_epoch(progress.step)
        function.end_epoch(source.distributed.element_spec)
    session.timing.wait_for_device(session.step_logs or {})
    session.history.train_secs += time.perf_counter() - started_at


def _end_epoch(
    session: Session, function: StepFunction, validation: Validation, continuation: Continuation
) -> None:
    """Validates if that is due, and ends the epoch, unless the run stops at once or goes back."""
    if session.info.rollback is not None:
        continuation.roll_back()
        return
    logs = session.results(session.step_logs, function)
    if not session.info.stops_now:
        logs |= validation.run_at_epoch_end()
    if not session.info.stops_now:
        session.end_epoch(logs)
        session.save_point()


def _make_source(state: TrainState, inputs: Inputs, config: TrainConfig) -> Source:
    # Splitting over workers, prefetching to a GPU and mapping class weights are tf.data's work.
    may_be_resident = isinstance(inputs.dataset, Resident) and may_train_resident(
        state.strategy, config
    )
    if config.input == "resident" and not may_be_resident:
        raise ConfigError(
            "input='resident' is for the pipeline's datasets of arrays in memory, on the CPU of "
            "one process, and without class weights: use input='auto'."
        )
    return Source(
        inputs,
        state.strategy,
        config.steps_per_epoch,
        first_epoch=config.initial_epoch,
        resident=may_be_resident and config.input != "streamed",
        batch_size=BatchSizeCheck(
            inputs.dataset, config, num_replicas=state.strategy.num_replicas_in_sync
        ),
    )


def _finalize(state: TrainState) -> None:
    """Writes the moving average of the weights, if an optimizer keeps one, to the weights."""
    for optimizer in state.optimizers.values():
        if int(optimizer.iterations.numpy()) == 0:
            continue  # no update: there is no average, but zeros
        is_own = optimizer is state.optimizer
        variables = state.model.trainable_variables if is_own else optimizer._trainable_variables
        optimizer.finalize_variable_values(variables)
