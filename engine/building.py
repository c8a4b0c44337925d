"""How a state takes a model: compiled as it is or as a person says, and built for a dataset."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.data.util.structure import NoneTensorSpec

from gradloop.usage import did_you_mean

from .arguments import describe, has_own
from .config import TrainConfig
from .options import ConfigError, show
from .protocols import Batch
from .step_errors import inputs_in_words, loss_in_words

State = Any  # TrainState, which calls these functions
# Where Keras looks up names, by the kind that its error tells.
_NAMES = {
    "optimizer": dir(keras.optimizers),
    "loss": dir(keras.losses),
    "metric": [*dir(keras.metrics), "accuracy", "acc", "crossentropy", "ce"],
}
_UNKNOWN_NAME = re.compile(r"Could not interpret (\w+) identifier: (.*)")
_COMPOSITE_SPECS = (tf.RaggedTensorSpec, tf.SparseTensorSpec)


def compile_model(model: keras.Model, **given: Any) -> None:
    """Compiles a model, or replaces what is given in a compiled one and keeps the rest."""
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        return
    if not has_own(model, "compile"):
        for name, value in given.items():
            _check_objects(name, value)
    if not model.compiled:
        with _names_in_words():
            model.compile(**({"optimizer": "rmsprop"} | given))
        return
    kept = dict(model._compile_config.config)
    # As it is: unwrapped, it would get a new loss scale.
    kept["optimizer"] = model.optimizer
    is_scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    # Past a model's own `compile`, whose arguments are its own.
    scales = "optimizer" in given or is_scaled
    with _names_in_words():
        keras.Model.compile(model, **(kept | given), auto_scale_loss=scales)


def as_compiled(config: TrainConfig, model: keras.Model) -> TrainConfig:
    """Returns the config with what a person has compiled the model with, as in fit.

    Raises:
      ConfigError: If the two do not go together.
    """
    changes: dict[str, Any] = {}
    if model.run_eagerly and not config.run_eagerly:
        changes["run_eagerly"] = True
    if model.steps_per_execution > 1 and config.steps_per_execution is None:
        changes["steps_per_execution"] = model.steps_per_execution
    try:
        return dataclasses.replace(config, **changes) if changes else config
    except ConfigError as error:
        words = ", ".join(f"{name}={show(value)}" for name, value in changes.items())
        raise ConfigError(f"the model was compiled with {words}: {error}") from error


def _check_objects(name: str, value: Any) -> None:
    # Keras would call the class as if it were a function.
    for part in tf.nest.flatten(value):
        if isinstance(part, type):
            raise ValueError(
                f"{name} has {describe(part)}: create an object of it, {part.__name__}(...)."
            )


@contextlib.contextmanager
def _names_in_words() -> Iterator[None]:
    """Adds the fix to Keras's error for a name that it does not know, or metrics without a list."""
    try:
        yield
    except ValueError as error:
        if match := _UNKNOWN_NAME.match(str(error)):
            kind, name = match[1], match[2]
            raise ValueError(
                f"{kind} {name!r} is unknown to Keras: pass an object or one of its names."
                f"{did_you_mean(name, _NAMES.get(kind, ()))}"
            ) from None
        if str(error).startswith("Expected `metrics` argument to be a list"):
            raise ValueError(f"{error} Pass a list: [...].") from None
        raise


def build_model(state: State, element_spec: Any) -> None:
    """Creates every variable that layers, optimizer and metrics still lack.

    Context: cross-replica, inside the scope of the strategy.
    """
    specs = tf.nest.flatten(element_spec)
    if not all(isinstance(spec, tf.TypeSpec) for spec in specs):
        raise ValueError(
            f"build needs the specs of a batch, not {describe(element_spec)}: pass "
            "dataset.element_spec."
        )
    model, is_dense = state.model, not any(isinstance(spec, _COMPOSITE_SPECS) for spec in specs)
    batch = tf.nest.map_structure(_spec_or_none, element_spec)
    with inputs_in_words(model, element_spec), batches_in_words(element_spec):
        _, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        if not (model.compiled and is_dense and _has_what_loss_needs(model, y)):
            _build_by_tracing(state, element_spec)
            return
        # fit does the same under a strategy; no public name does it for metrics.
        with loss_in_words(model, y, getattr(model, "outputs", None)), _names_in_words():
            model._symbolic_build(data_batch=batch)


def _build_by_tracing(state: State, element_spec: Any) -> None:
    # Keras's symbolic tensors are dense, and it takes compiled models alone: the rest goes through
    # a graph that is thrown away.
    def evaluate(batch: Any) -> None:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        y_pred = state.call_model(x, training=False)
        if state.model.compiled and _has_what_loss_needs(state.model, y):
            state.compute_loss(x, y, y_pred, sample_weight, training=False)
            state.model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    tf.function(evaluate, autograph=False).get_concrete_function(element_spec)
    if state.optimizer is not None and not state.optimizer.built:
        state.optimizer.build(state.model.trainable_variables)


def _has_what_loss_needs(model: keras.Model, y: Any) -> bool:
    # Without labels, a step may still make its own of the inputs, as an autoencoder's does.
    has_labels = any(target is not None for target in tf.nest.flatten(y))
    return has_labels or has_own(model, "compute_loss") or model.loss is None


def may_be_batched(element_spec: Any) -> bool:
    """Returns whether all parts of a batch can have one leading dimension, of its examples."""
    specs = tf.nest.flatten(element_spec)
    shapes = [spec.shape for spec in specs if isinstance(spec, tf.TensorSpec)]
    sizes = {shape[0] for shape in shapes if shape.rank} - {None}
    return len(sizes) <= 1 and all(shape.rank != 0 for shape in shapes)


@contextlib.contextmanager
def batches_in_words(element_spec: Any) -> Iterator[None]:
    """Says in a sentence that a dataset fails because `batch` was forgotten, where it looks so.

    A step may take a scalar beside the examples: that alone is no error.

    Raises:
      ValueError: If the parts of an element have no leading dimension in common.
    """
    try:
        yield
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        if may_be_batched(element_spec):
            raise
        shapes = [str(getattr(spec, "shape", "?")) for spec in tf.nest.flatten(element_spec)]
        raise ValueError(
            f"The elements of the dataset have the shapes {' and '.join(shapes)}, which share no "
            "first dimension, that of the examples: call dataset.batch(batch_size)."
        ) from error


def spec_of_replica(element_spec: Any, num_replicas: int = 1) -> Any:
    """Returns the spec of one replica's part of a batch.

    Args:
      element_spec: Of a dataset, or of a distributed one, which has that of each replica.
      num_replicas: That share a batch of a dataset.
    """
    has_batches = may_be_batched(element_spec)

    def of_one(spec: Any) -> Any:
        if hasattr(spec, "_value_specs"):
            return spec._value_specs[0]
        is_split = num_replicas > 1 and has_batches and isinstance(spec, tf.TensorSpec)
        if not is_split or not spec.shape.rank:
            return spec
        size = spec.shape[0]
        part = size // num_replicas if size is not None and size % num_replicas == 0 else None
        return tf.TensorSpec([part, *spec.shape[1:]], spec.dtype, spec.name)

    return tf.nest.map_structure(of_one, element_spec)


def _spec_or_none(spec: Any) -> Any:
    # A generator's dataset cannot hold the None of a batch; Keras puts an empty Optional there.
    return None if isinstance(spec, tf.OptionalSpec | NoneTensorSpec) else spec


def none_for_optionals(batch: Batch) -> Batch:
    """Returns a batch with None for the empty Optionals that Keras puts where it has None."""
    return tf.nest.map_structure(
        lambda v: None if isinstance(v, tf.experimental.Optional) else v, batch
    )
