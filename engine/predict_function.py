"""The outputs of a model for the next N batches, in one host call.

Beside `step_function`: what a step is for `fit` and `evaluate`, the model's outputs are for
`predict`. `source` calls the function once an execution, and takes no logs from it, but outputs.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from . import devices
from .array_batches import ArrayBatches
from .building import as_compiled, none_for_optionals
from .config import TrainConfig
from .execution_mode import resolve_jit_compile
from .protocols import Batch, Logs
from .replicas.uneven import feed_row, without_row
from .replicas.xla import call_compiled
from .runtime import keeping_sums
from .state import TrainState
from .step import predict_step
from .step_function import StepFunction
from .step_logs import num_examples

# Of one call: the device holds them beside the batches of which they come.
MAX_OUTPUT_BYTES = 64 * 2**20
# Batches do not depend on one another, so that one fills the cores that another leaves idle: of a
# dense net, two are 1.2 times as fast as one, of convolutions, which fill them, as fast. More than
# two are no faster, and each has its activations in memory.
_BATCHES_AT_ONCE = 2


class PredictFunction:
    """Predicts the next batches of an iterator. Has what `Source` asks of a `StepFunction`.

    The outputs of a call are joined in the graph, where it knows their shapes but for the leading
    dimension. Ragged and sparse outputs, those without a batch's dimension, and those of unknown
    shape come back batch by batch, as do the outputs of eager models and of several workers.

    Attributes:
      parts: The outputs of each call, or batch, that `take` has not returned yet.
      num_steps_done: Batches of the last call, int32 scalar: fewer if the data ended.
      measured: As in `StepFunction`: zeros.
      num_traces: How often the loop was traced.
      sizes: As in `StepFunction`.
    """

    def __init__(
        self, state: TrainState, strategy: tf.distribute.Strategy, config: TrainConfig
    ) -> None:
        self._one_batch: Any = make_predict_function(state, strategy, config)
        self._has_replicas = strategy.num_replicas_in_sync > 1
        self._may_loop = state.peers.is_alone and not config.run_eagerly
        self._runs_eagerly = config.run_eagerly
        self._run: Any = tf.function(self._loop, autograph=False, reduce_retracing=True)
        self._max_batches: int | None = None
        self._joins: dict[Any, bool] = {}
        self.parts: list[Any] = []
        self.num_steps_done = tf.constant(0)
        self.measured = tf.zeros([3], tf.float64)
        self.num_traces = 0
        self.sizes: tuple[int, ...] = ()

    def trace(self, element_spec: Any) -> None:
        """Traces the model for the batches of a dataset, once, so that errors come before data."""
        key = repr(element_spec)
        if key not in self._joins and not self._runs_eagerly:
            traced = self._one_batch.get_concrete_function(element_spec)
            outputs = tf.nest.flatten(traced.structured_outputs)
            self._joins[key] = self._may_loop and all(map(_may_join, outputs))

    def __call__(self, iterator: Any, num_steps: tf.Tensor) -> Logs:
        """Predicts `num_steps` batches, or as many as the iterator has; see `take`.

        Context: cross-replica, on the host.
        """
        wanted, done = int(num_steps), 0
        joins = self._joins.get(repr(iterator.element_spec), False)
        predict = self._predict_joined if joins else self._predict_each
        while done < wanted:
            size = min(wanted - done, self._max_batches or wanted)
            with keeping_sums():
                num_done = predict(iterator, size)
            done += num_done
            if isinstance(iterator, ArrayBatches):
                iterator = iterator.at(int(iterator.step) + num_done)
            if num_done < size:
                break
        self.num_steps_done = tf.constant(done)
        return {}

    def take(self) -> list[Any]:
        """Returns the outputs since the last call of this method, in order, on the device."""
        taken, self.parts = self.parts, []
        return taken

    def _predict_each(self, iterator: Any, size: int) -> int:
        batches = iterator.batches() if isinstance(iterator, ArrayBatches) else iterator
        outputs = [self._one_batch(batch) for batch in itertools.islice(batches, size)]
        self.parts += outputs
        return len(outputs)

    def _predict_joined(self, iterator: Any, size: int) -> int:
        num_done, outputs = self._run(iterator, tf.constant(size))
        num_done = int(num_done)
        if num_done:
            self.parts.append(outputs)
            num_bytes = sum(o.shape.num_elements() * o.dtype.size for o in tf.nest.flatten(outputs))
            self._max_batches = max(1, MAX_OUTPUT_BYTES * num_done // max(num_bytes, 1))
        return num_done

    def _loop(self, iterator: Any, num_steps: tf.Tensor) -> tuple[tf.Tensor, Any]:
        """Builds the graph of one call; runs only while TensorFlow traces."""
        self.num_traces += 1
        traced = self._one_batch.get_concrete_function(iterator.element_spec)
        outputs = tf.nest.flatten(traced.structured_outputs)
        lists = [
            tf.raw_ops.EmptyTensorList(
                element_shape=[-1, *o.shape[1:]], max_num_elements=-1, element_dtype=o.dtype
            )
            for o in outputs
        ]
        loop = _loop_over_arrays if isinstance(iterator, ArrayBatches) else _loop_over_iterator
        # A GPU has one stream: it would not compute two batches at once, but hold them.
        at_once = 1 if self._has_replicas or devices.has_gpu() else _BATCHES_AT_ONCE
        num_done, lists = loop(self._append, iterator, num_steps, lists, at_once)
        joined = [
            tf.ensure_shape(_join_list(one, o), [None, *o.shape[1:]])
            for one, o in zip(lists, outputs, strict=True)
        ]
        return num_done, tf.nest.pack_sequence_as(traced.structured_outputs, joined)

    def _append(self, batch: Batch, lists: list[tf.Tensor]) -> list[tf.Tensor]:
        outputs = tf.nest.flatten(self._one_batch(batch))
        return [
            tf.raw_ops.TensorListPushBack(input_handle=one, tensor=output)
            for one, output in zip(lists, outputs, strict=True)
        ]


# What `Source` calls.
BatchFunction = StepFunction | PredictFunction


def _loop_over_iterator(
    append: Callable[..., Any], iterator: Any, num_steps: tf.Tensor, lists: Any, at_once: int
) -> tuple[tf.Tensor, Any]:
    def body(step: tf.Tensor, batch: Any, lists: Any) -> tuple[tf.Tensor, Any, Any]:
        # The next batch is fetched in the meantime; after the last step none, as it would be lost.
        more = step + 1 < num_steps
        following = tf.cond(more, iterator.get_next_as_optional, lambda: batch)
        return step + 1, following, append(batch.get_value(), lists)

    num_done, _, lists = tf.while_loop(
        lambda step, batch, lists: tf.logical_and(step < num_steps, batch.has_value()),
        body,
        (tf.constant(0), iterator.get_next_as_optional(), lists),
        parallel_iterations=at_once,
    )
    return num_done, lists


def _loop_over_arrays(
    append: Callable[..., Any],
    batches: ArrayBatches,
    num_steps: tf.Tensor,
    lists: Any,
    at_once: int,
) -> tuple[tf.Tensor, Any]:
    get, begin = batches.reader(), batches.step
    end = begin + tf.cast(num_steps, tf.int64)
    _, lists = tf.while_loop(
        lambda step, lists: step < end,
        lambda step, lists: (step + 1, append(get(step), lists)),
        (begin, lists),
        parallel_iterations=at_once,
    )
    return num_steps, lists


def _may_join(output: Any) -> bool:
    """Returns whether the rows of an output can be joined to those of other batches in a graph."""
    if not isinstance(output, tf.Tensor | tf.TensorSpec) or not output.shape.rank:
        return False
    return bool(output.shape[1:].is_fully_defined())


def _join_list(handle: tf.Tensor, output: Any) -> tf.Tensor:
    return tf.raw_ops.TensorListConcatV2(
        input_handle=handle,
        element_shape=[-1, *output.shape[1:]],
        leading_dims=tf.constant([], tf.int64),
        element_dtype=output.dtype,
    ).tensor


def predict_function(state: TrainState, config: TrainConfig) -> PredictFunction:
    """Returns what predicts many batches, the function of an earlier call if there is one."""
    key = config.jit_compile, config.jit_scope, config.run_eagerly
    if key not in state.other_functions:
        state.other_functions[key] = PredictFunction(state, state.strategy, config)
    function: PredictFunction = state.other_functions[key]
    function.take()  # what a call that was interrupted has left
    return function


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
      config: Read: `jit_compile`, `jit_scope`, `run_eagerly`.
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
    config = as_compiled(config, state.model)

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
