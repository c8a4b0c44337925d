"""predict: the outputs of the model over a dataset, in its order, batch by batch."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from keras.src.backend.tensorflow.trainer import (
    convert_to_np_if_not_ragged,
    potentially_ragged_concat,
)

from .arguments import describe, refuse_unknown
from .building import none_for_optionals
from .config import TrainConfig
from .execution_mode import resolve_jit_compile
from .hooks.base import Hook
from .inputs import Inputs
from .protocols import Batch
from .replicas.uneven import feed_row, without_row
from .replicas.xla import call_compiled
from .session import Session
from .source import Source
from .state import TrainState
from .step import predict_step
from .step_errors import explained, inputs_in_words
from .step_logs import num_examples
from .workers.slices import of_context


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
      config: Read: `global_batch_size` (of arrays), `jit_compile`, `jit_scope`, `run_eagerly`, and
        `steps_per_execution`: how often hooks are called.
      steps: Batches to predict; None: all.
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
    if steps is not None and not (isinstance(steps, int | np.integer) and steps >= 1):
        raise ValueError(f"steps={describe(steps)} must be an int of 1 or more, or None: all.")
    x = of_context(x, state.strategy)
    inputs = Inputs(x, batch_size=config.global_batch_size, steps_per_epoch=steps)
    source = Source(inputs, state.strategy, steps)
    batches = itertools.islice(source.distributed, steps or inputs.num_batches)
    with inputs_in_words(state.model, source.element_spec):
        spec = source.distributed.element_spec
        function = make_predict_function(state, state.strategy, config, spec)
    session.call("on_predict_begin")
    dispatched = explained(_dispatch(session, function, batches), state, source)
    outputs = list(_fetch(session, dispatched))
    session.call("on_predict_end")
    if not outputs:
        raise ValueError("The dataset has no batch: there is nothing to predict.")
    return _join_structures(outputs)


def _dispatch(
    session: Session, function: Callable[[Batch], Any], batches: Iterable[Batch]
) -> Iterator[Any]:
    """Yields what the device computes of each batch."""
    size = session.info.steps_per_execution or 1
    for index, batch in enumerate(batches):
        if index % size == 0:
            session.info.predict_step = index
            session.call("on_predict_batch_begin")
        yield function(batch)


def _fetch(session: Session, dispatched: Iterator[Any]) -> Iterator[Any]:
    """Yields the outputs of each batch on the host, and tells the hooks.

    Without hooks, the device works on a batch while the host copies the outputs of the one before.
    """
    is_watched = any(hook.overrides("on_predict_batch_end") for hook in session.hooks)
    size = session.info.steps_per_execution or 1
    pending: list[Any] = []
    for index, batch in enumerate(dispatched):
        if pending and not is_watched:
            yield _to_host(pending.pop())
        pending.append(batch)
        if is_watched and len(pending) == size:
            yield from _end_batches(session, index, pending)
            if session.info.stop_reason is not None:
                return
    if is_watched and pending:
        yield from _end_batches(session, index, pending)
    yield from map(_to_host, pending)


def _end_batches(session: Session, index: int, pending: list[Any]) -> list[Any]:
    outputs = [_to_host(batch) for batch in pending]
    pending.clear()
    session.info.predict_step = index
    session.info.outputs = _join_structures(outputs)
    session.call("on_predict_batch_end")
    return outputs


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


def make_predict_function(
    state: TrainState,
    strategy: tf.distribute.Strategy,
    config: TrainConfig,
    element_spec: Any = None,
) -> Callable[[Batch], Any]:
    """Returns a function of one batch to the outputs of the model, in the order of the data.

    Context: cross-replica.

    Args:
      state: Its model predicts.
      strategy: Runs the model on each replica.
      config: Read: `jit_compile`, `jit_scope`.
      element_spec: Of the dataset; the function is then traced once for all its batches.

    Returns:
      `outputs = predict_function(batch)`; the leading dimension is `global_batch_size`.

    Example:
      >>> predict = engine.make_predict_function(state, strategy, config)
      >>> predict(next(iter(train_ds))).shape
      TensorShape([8, 1])
    """
    has_replicas = strategy.num_replicas_in_sync > 1
    is_compiled = resolve_jit_compile(state, strategy, config) and config.jit_scope != "update"

    def one_replica(batch: Batch) -> Any:
        batch = none_for_optionals(batch)
        if not has_replicas:
            return predict_step(state, batch)
        is_empty = tf.equal(num_examples(batch), 0)
        call = functools.partial(predict_step, state, feed_row(batch, is_empty))
        return without_row(call_compiled(call) if is_compiled else call(), is_empty)

    def run(batch: Batch) -> Any:
        outputs = strategy.run(one_replica, args=(batch,))
        if not state.peers.is_alone:
            return tf.nest.map_structure(lambda v: _gather(strategy, v), outputs)
        return tf.nest.map_structure(
            lambda v: _concat(strategy.experimental_local_results(v)), outputs
        )

    if config.run_eagerly:
        return run
    compiled: Any = tf.function(
        run,
        autograph=False,
        reduce_retracing=True,
        jit_compile=(is_compiled and not has_replicas) or None,
    )
    if element_spec is not None:
        compiled.get_concrete_function(element_spec)
    function: Callable[[Batch], Any] = compiled
    return function


def _gather(strategy: tf.distribute.Strategy, value: Any) -> Any:
    """Returns the outputs of the replicas of all workers, on each of them."""
    first = strategy.experimental_local_results(value)[0]
    if not isinstance(first, tf.Tensor):
        raise ValueError(
            f"The model gives a {type(first).__name__}, which workers cannot exchange: let it give "
            "a dense tensor, such as outputs.to_tensor(), or predict in one process."
        )
    # The collectives know neither booleans nor the short floating-point types.
    wire = {tf.bool: tf.int32, tf.bfloat16: tf.float32}.get(first.dtype, first.dtype)

    def prepare(v: tf.Tensor) -> tf.Tensor:
        v = tf.cast(v, wire)
        return v[None] if v.shape.rank == 0 else v

    prepared = strategy.run(prepare, args=(value,))
    return tf.cast(strategy.gather(prepared, axis=0), first.dtype)


def _concat(values: tuple[Any, ...]) -> Any:
    if len(values) == 1:
        return values[0]
    if isinstance(values[0], tf.SparseTensor):
        return tf.sparse.concat(axis=0, sp_inputs=values)
    is_scalar = isinstance(values[0], tf.Tensor) and values[0].shape.rank == 0
    return tf.stack(values) if is_scalar else tf.concat(values, axis=0)
