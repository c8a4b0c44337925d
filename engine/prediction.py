"""predict: the outputs of the model over a dataset, in its order, batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from .agreement import check_agreement
from .config import TrainConfig
from .protocols import Batch
from .source import Source
from .state import TrainState
from .step import predict_step
from .step_function import none_for_optionals, resolve_jit_compile


def predict(state: TrainState, dataset: tf.data.Dataset, config: TrainConfig) -> Any:
    """Returns the outputs of the model over a dataset, as `keras.Model.predict` does.

    Context: cross-replica, on the host.

    Args:
      state: Its model predicts; nothing is changed.
      dataset: As in `fit`; targets and weights are ignored.
      config: Read: `jit_compile`, `jit_scope`.

    Returns:
      NumPy array of shape `[num_examples, ...]`, or the model's structure of them.

    Raises:
      ValueError: If the dataset has no batch, or no end.

    Example:
      >>> engine.predict(state, train_ds, config).shape
      (32, 1)
    """
    check_agreement(config, state)
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
        raise ValueError("The dataset has no batch: there is nothing to predict.")
    outputs.append(tf.nest.map_structure(np.asarray, pending))
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts, axis=0), *outputs)


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
    compiled: Any = tf.function(
        run, autograph=False, reduce_retracing=True, jit_compile=is_compiled or None
    )
    if element_spec is not None:
        compiled.get_concrete_function(element_spec)
    function: Callable[[Batch], Any] = compiled
    return function


def _concat(values: tuple[tf.Tensor, ...]) -> tf.Tensor:
    return values[0] if len(values) == 1 else tf.concat(values, axis=0)
