"""How a state takes a model: compiled as it is or as a person says, and built for a dataset."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.data.util.structure import NoneTensorSpec

from .protocols import Batch

State = Any  # TrainState, which calls these functions
_COMPOSITE_SPECS = (tf.RaggedTensorSpec, tf.SparseTensorSpec)


def compile_model(model: keras.Model, **given: Any) -> None:
    """Compiles a model, or replaces what is given in a compiled one and keeps the rest."""
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        return
    if not model.compiled:
        model.compile(**({"optimizer": "rmsprop"} | given))
        return
    kept = dict(model._compile_config.config)
    # As it is: unwrapped, it would get a new loss scale.
    kept["optimizer"] = model.optimizer
    is_scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    # Past a model's own `compile`, whose arguments are its own.
    keras.Model.compile(model, **(kept | given), auto_scale_loss="optimizer" in given or is_scaled)


def build_model(state: State, element_spec: Any) -> None:
    """Creates every variable that layers, optimizer and metrics still lack.

    Context: cross-replica, inside the scope of the strategy.
    """
    specs = tf.nest.flatten(element_spec)
    if not state.model.compiled or any(isinstance(spec, _COMPOSITE_SPECS) for spec in specs):
        _build_by_tracing(state, element_spec)
    else:
        # fit does the same under a strategy; no public name does it for metrics.
        batch = tf.nest.map_structure(_spec_or_none, element_spec)
        state.model._symbolic_build(data_batch=batch)


def _build_by_tracing(state: State, element_spec: Any) -> None:
    # Keras's symbolic tensors are dense, and it takes compiled models alone: the rest goes through
    # a graph that is thrown away.
    def evaluate(batch: Any) -> None:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        y_pred = state.call_model(x, training=False)
        if state.model.compiled:
            state.compute_loss(x, y, y_pred, sample_weight, training=False)
            state.model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    tf.function(evaluate, autograph=False).get_concrete_function(element_spec)
    if state.optimizer is not None and not state.optimizer.built:
        state.optimizer.build(state.model.trainable_variables)


def _spec_or_none(spec: Any) -> Any:
    # A generator's dataset cannot hold the None of a batch; Keras puts an empty Optional there.
    return None if isinstance(spec, tf.OptionalSpec | NoneTensorSpec) else spec


def none_for_optionals(batch: Batch) -> Batch:
    """Returns a batch with None for the empty Optionals that Keras puts where it has None."""
    return tf.nest.map_structure(
        lambda v: None if isinstance(v, tf.experimental.Optional) else v, batch
    )
