"""predict: the outputs of the model over a dataset, in its order, batch by batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from keras.src.backend.tensorflow.trainer import (
    convert_to_np_if_not_ragged,
    potentially_ragged_concat,
)

from .agreement import check_agreement
from .building import none_for_optionals
from .config import TrainConfig
from .execution_mode import resolve_jit_compile
from .inputs import Inputs
from .protocols import Batch
from .source import Source
from .state import TrainState
from .step import predict_step


def predict(state: TrainState, x: Any, config: TrainConfig, *, steps: int | None = None) -> Any:
    """Returns the outputs of the model over a dataset, as `keras.Model.predict` does.

    Context: cross-replica, on the host.

    Args:
      state: Its model predicts, with its own `predict_step` if it has one; nothing is changed.
      x: As in `fit`; targets and weights are ignored.
      config: Read: `global_batch_size` (of arrays), `jit_compile`, `jit_scope`, `run_eagerly`.
      steps: Batches to predict; None: all.

    Returns:
      NumPy array of shape `[num_examples, ...]`, or the model's structure of them. Ragged and
      sparse outputs stay tensors, and batches of other lengths become a ragged one, as in Keras.

    Raises:
      ValueError: If the dataset has no batch, or no end and there is no `steps`.

    Example:
      >>> engine.predict(state, train_ds, config).shape
      (32, 1)
    """
    check_agreement(config, state)
    inputs = Inputs(x, batch_size=config.global_batch_size, steps_per_epoch=steps)
    batches = Source(inputs, state.strategy, steps).distributed
    function = make_predict_function(state, state.strategy, config, batches.element_spec)
    outputs: list[Any] = []
    pending = None
    for batch in itertools.islice(batches, steps or inputs.num_batches):
        # The device works on this batch while the host copies the outputs of the one before.
        dispatched = function(batch)
        if pending is not None:
            outputs.append(tf.nest.map_structure(_to_host, pending))
        pending = dispatched
    if pending is None:
        raise ValueError("The dataset has no batch: there is nothing to predict.")
    outputs.append(tf.nest.map_structure(_to_host, pending))
    return tf.nest.map_structure(lambda *parts: _join(parts), *outputs)


def _to_host(value: Any) -> Any:
    return value if isinstance(value, tf.RaggedTensor | tf.SparseTensor) else np.asarray(value)


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

    def one_replica(batch: Batch) -> Any:
        return predict_step(state, none_for_optionals(batch))

    def run(batch: Batch) -> Any:
        outputs = strategy.run(one_replica, args=(batch,))
        return tf.nest.map_structure(
            lambda v: _concat(strategy.experimental_local_results(v)), outputs
        )

    is_compiled = resolve_jit_compile(state, strategy, config) and config.jit_scope != "update"
    if config.run_eagerly:
        return run
    compiled: Any = tf.function(
        run, autograph=False, reduce_retracing=True, jit_compile=is_compiled or None
    )
    if element_spec is not None:
        compiled.get_concrete_function(element_spec)
    function: Callable[[Batch], Any] = compiled
    return function


def _concat(values: tuple[Any, ...]) -> Any:
    if len(values) == 1:
        return values[0]
    if isinstance(values[0], tf.SparseTensor):
        return tf.sparse.concat(axis=0, sp_inputs=values)
    is_scalar = isinstance(values[0], tf.Tensor) and values[0].shape.rank == 0
    return tf.stack(values) if is_scalar else tf.concat(values, axis=0)
