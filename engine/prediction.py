"""predict: the outputs of the model over a dataset, in its order, batch by batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from keras.src.backend.tensorflow.trainer import (
    convert_to_np_if_not_ragged,
    potentially_ragged_concat,
)

from .agreement import within_step_limit
from .arguments import describe, refuse_unknown
from .config import TrainConfig
from .hooks.base import Hook
from .inputs import Inputs
from .planner import Planner, Stops
from .predict_function import PredictFunction, predict_function
from .session import Session
from .source import Source
from .state import TrainState
from .step_errors import explained, inputs_in_words
from .strategy import may_be_resident
from .workers.slices import of_context

_MOMENTS = ("on_predict_batch_begin", "on_predict_batch_end")


def predict(
    state: TrainState,
    x: Any,
    config: TrainConfig,
    *,
    steps: int | None = None,
    hooks: Sequence[Hook] | None = (),
    **unknown: Any,
) -> Any:
    """Returns the outputs of the model over a dataset, as `keras.Model.predict` does.

    Context: cross-replica, on the host. With several workers, each gets the outputs of all.

    Args:
      state: Its model predicts, with its own `predict_step` if it has one; nothing is changed.
      x: As in `fit`; targets and weights are ignored.
      config: Read: `global_batch_size` (of arrays), `jit_compile`, `jit_scope`, `run_eagerly`,
        `input`, and `steps_per_execution`: how often hooks are called.
      steps: Batches to predict; None: all. `keras.config.set_max_steps_per_epoch` limits them.
      hooks: Their `on_predict_` methods are called; one may request a stop.
      **unknown: Refused: the error says where that argument of Keras's belongs here.

    Returns:
      NumPy array of shape `[num_examples, ...]`, or the model's structure of them. Ragged and
      sparse outputs stay tensors, and batches of other lengths become a ragged one, as in Keras.

    Raises:
      TypeError: If an argument is unknown.
      ValueError: If the dataset has no batch, or no end and there is no `steps`.

    Example:
      >>> engine.predict(state, train_ds, config).shape
      (32, 1)
    """
    refuse_unknown(predict, unknown)
    session = Session(state, config, hooks)
    config = session.config
    if steps is not None and not (isinstance(steps, int | np.integer) and steps >= 1):
        raise ValueError(f"steps={describe(steps)} must be an int of 1 or more, or None: all.")
    steps = within_step_limit(steps)
    x = of_context(x, state.strategy)
    inputs = Inputs(x, batch_size=config.global_batch_size, steps_per_epoch=steps)
    ordered = may_be_resident(state.strategy, config)
    source = Source(inputs, state.strategy, steps, ordered=ordered)
    function = predict_function(state, config)
    source.begin_epoch(0)
    with inputs_in_words(state.model, source.element_spec):
        function.trace(source.iterator.element_spec)
    session.info.num_steps = source.steps_per_epoch
    state.model.stop_predicting = False
    with session.noting_failure():
        session.call("on_predict_begin")
        outputs = list(_predict(session, source, function, config))
        session.call("on_predict_end")
    return _join_structures(outputs)


def _predict(
    session: Session, source: Source, function: PredictFunction, config: TrainConfig
) -> Iterator[Any]:
    """Yields the outputs of each call on the host, and tells the hooks.

    Without hooks, the device works on the next execution while the host copies the outputs of the
    one before.
    """
    is_watched = any(hook.overrides(moment) for hook in session.hooks for moment in _MOMENTS)
    if is_watched:  # They are called after as many batches as the config says.
        config = dataclasses.replace(config, steps_per_execution=config.steps_per_execution or 1)
    planner = Planner(config, evaluates=True, function=function)
    pending: list[Any] = []
    with session.consensus.on_sizes(planner):
        for num_batches in _executions(session, source, function, planner):
            if not is_watched:
                yield from map(_to_host, pending)
                pending = function.take()
                continue
            outputs = [_to_host(part) for part in function.take()]
            session.info.predict_step += num_batches - 1
            session.info.outputs = _join_structures(outputs)
            session.call("on_predict_batch_end")
            session.info.predict_step += 1
            yield from outputs
    yield from map(_to_host, pending)


def _executions(
    session: Session, source: Source, function: PredictFunction, planner: Planner
) -> Iterator[int]:
    """Yields the number of batches of each execution, before which hooks are called."""
    stops = Stops(session.stops_evaluation, session.stops_at_once)
    executions = source.executions(function, planner, stops, session.timing)
    executions = explained(executions, session.state, source)
    session.info.predict_step = num_done = 0
    while True:
        # Of data of unknown length, only the next execution tells whether there is one.
        may_go_on = source.steps_per_epoch is None or num_done < source.steps_per_epoch
        if may_go_on and not session.stops_evaluation():
            session.call("on_predict_batch_begin")
        execution = next(executions, None)
        if execution is None:
            return
        num_done += execution.num_steps
        yield execution.num_steps


def _join_structures(outputs: list[Any]) -> Any:
    return tf.nest.map_structure(lambda *parts: _join(parts), *outputs)


def _to_host(outputs: Any) -> Any:
    return tf.nest.map_structure(
        lambda v: v if isinstance(v, tf.RaggedTensor | tf.SparseTensor) else np.asarray(v), outputs
    )


def _join(parts: tuple[Any, ...]) -> Any:
    shapes = {p.shape[1:] if isinstance(p, np.ndarray) and p.ndim else None for p in parts}
    if len(shapes) == 1 and None not in shapes:
        return np.concatenate(parts, axis=0)
    joined = potentially_ragged_concat([_to_tensor(part) for part in parts])
    return convert_to_np_if_not_ragged(joined)


def _to_tensor(part: Any) -> Any:
    return tf.convert_to_tensor(part) if isinstance(part, np.ndarray) else part
