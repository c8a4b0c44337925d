"""Errors of Keras and TensorFlow in a step, in one sentence each, as far as they are recognised.

TensorFlow names a node of a graph and the Python lines that made it, in a text of 2,000 characters;
what a person passed is in its last line. What is not recognised here stays as it is.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .arguments import has_own

State = Any  # TrainState, which calls these functions

# TensorFlow checks labels on a CPU alone: on a GPU, and under XLA, the loss is NaN instead.
_LABEL = re.compile(r"label value of (-?\d+) which is outside the valid range of \[0, (\d+)\)")
_ID = re.compile(r"node (\S+)/\w+ .*indices\[[\d,]+\] = (-?\d+) is not in \[0, (\d+)\)", re.DOTALL)
_SHAPES = re.compile(
    r"node \S*compile_loss/(\w+)/.*Incompatible shapes: (\[[\d,]*\]) vs\. (\[[\d,]*\])", re.DOTALL
)
_TEXTS = re.compile(r"Cast string to \w+ is not supported")
_STATIC_SHAPES = re.compile(r"Dimensions must be equal|Shapes .* are incompatible|must have the sa")

_MAX_SEARCH_SECS = 10.0


@contextlib.contextmanager
def loss_in_words(model: keras.Model, y: Any, y_pred: Any) -> Iterator[None]:
    """Says in a sentence why the loss of a batch cannot be computed, where that is recognised.

    Raises:
      ValueError: If there is no loss, there are no labels, or these do not fit the outputs.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        sentence = _explain_loss(str(error), model, y, y_pred)
        if sentence is None:
            raise
        raise ValueError(sentence).with_traceback(error.__traceback__) from None


def _explain_loss(text: str, model: keras.Model, y: Any, y_pred: Any) -> str | None:
    if text.startswith("No loss to compute"):
        return (
            "There is no loss: pass TrainState(model, optimizer, loss=...), compile the model with "
            "one, or use a step that computes its own."
        )
    targets = [target for target in tf.nest.flatten(y) if target is not None]
    outputs = tf.nest.flatten(y_pred)
    if not targets and not has_own(model, "compute_loss") and "None" in text:
        return (
            f"The batches have no labels, and the loss {_name(model.loss)} needs them: pass "
            "batches of (x, y), y=... beside arrays, or a step that does without labels."
        )
    if len(targets) != len(outputs) and outputs and ("structure" in text or "The path" in text):
        return (
            f"Targets of a batch: {len(targets)}, outputs of the model: {len(outputs)}. Give each "
            "output one target, in the same structure, and one loss, or None."
        )
    if len(targets) == len(outputs) == 1 and _STATIC_SHAPES.search(text):
        shapes = targets[0].shape, outputs[0].shape
        if not shapes[0].is_compatible_with(shapes[1]):
            return (
                f"The targets of a batch have the shape {shapes[0]} and the outputs {shapes[1]}, "
                f"which the loss {_name(model.loss)} cannot compare: change the last layer, the "
                "labels or the loss."
            )
    return None


@contextlib.contextmanager
def inputs_in_words(model: keras.Model, element_spec: Any) -> Iterator[None]:
    """Says in a sentence why a model cannot take the batches of a dataset, where that is certain.

    Raises:
      ValueError: If their structure or shape is not that of the model's inputs.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        sentence = _explain_inputs(model, element_spec)
        if sentence is None:
            raise
        raise ValueError(sentence).with_traceback(error.__traceback__) from None


def _explain_inputs(model: keras.Model, element_spec: Any) -> str | None:
    if isinstance(element_spec, tuple) and len(element_spec) > 3:
        return (
            f"A batch has {len(element_spec)} parts, and a model is trained on x, (x, y) or "
            "(x, y, sample_weight): pack several inputs into one tuple, ((a, b), y)."
        )
    inputs = getattr(model, "inputs", None)
    if not inputs:  # only a call tells what it takes
        return None
    x, _, _ = keras.utils.unpack_x_y_sample_weight(element_spec)
    names, given = [str(one.name) for one in inputs], tf.nest.flatten(x)
    if isinstance(x, dict) and set(x) != set(names):
        wanted = "one input" if len(names) == 1 else f"the inputs {', '.join(names)}"
        return (
            f"x of a batch is a dict with the keys {', '.join(map(str, x))}, and the model has "
            f"{wanted}: use dataset.map to get (x, y) with x in the structure of its inputs."
        )
    if len(inputs) != len(given):
        return (
            f"Inputs of a batch: {len(given)}, of the model: {len(inputs)}. Use dataset.map to get "
            "(x, y) with x in the structure of the model's inputs."
        )
    is_one = len(given) == 1 and isinstance(given[0], tf.TensorSpec)
    return _explain_tensor(inputs[0], given[0]) if is_one else None


def _explain_tensor(wanted: keras.KerasTensor, given: tf.TensorSpec) -> str | None:
    shape, example = given.shape, wanted.shape[1:]
    if given.dtype == tf.string != wanted.dtype:
        return (
            f"The inputs of a batch are strings, and the model takes {wanted.dtype}: map them to "
            "numbers, or begin the model with a layer such as keras.layers.TextVectorization."
        )
    if shape.is_fully_defined() and shape.is_compatible_with(example):
        return (
            f"The dataset has single examples of the shape {shape}, and the model takes batches of "
            "them: call dataset.batch(batch_size)."
        )
    if shape.rank == len(wanted.shape) and not shape.is_compatible_with(wanted.shape):
        return (
            f"The inputs of a batch have the shape {shape}, and the model takes {wanted.shape}: "
            "change the data, or build the model for them."
        )
    return None


def _name(loss: Any) -> str:
    if isinstance(loss, str):
        return repr(loss)
    return repr(
        getattr(loss, "name", None) or getattr(loss, "__name__", None) or "that is compiled"
    )


@contextlib.contextmanager
def update_in_words() -> Iterator[None]:
    """Says in a sentence that an optimizer was built for the variables of another model."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("Unknown variable: "):
            raise
        path = str(error).partition("path=")[2].partition(",")[0]
        raise ValueError(
            f"The optimizer does not know the variable {path}: it was built for other ones, such "
            "as another model's. Create an optimizer for each TrainState, and pass a further one "
            "of a step in extras."
        ).with_traceback(error.__traceback__) from None


def explained(executions: Iterable[Any], state: State, source: Any) -> Iterator[Any]:
    """Yields the executions of an epoch; says what is wrong with the data, where TensorFlow stops.

    Args:
      executions: What `Source.executions` returns.
      state: What is trained or evaluated.
      source: Of the batches.

    Raises:
      ValueError: If the labels, the ids, or their shapes are recognised as the cause.
    """
    try:
        yield from executions
    except tf.errors.CancelledError as error:
        # Under replicas, TensorFlow reports what it cancelled, and not what failed.
        label = _find_label(state, source) if state.strategy.num_replicas_in_sync > 1 else None
        if label is not None:
            raise ValueError(_explain_label(*label)) from None
        error.add_note(
            "An operation failed on one replica, and TensorFlow names only what it cancelled for "
            "that: train on the same batches without a strategy to see which."
        )
        raise
    except tf.errors.OpError as error:
        sentence = _explain_operation(error.message, state.model)
        if sentence is None:
            raise
        raise ValueError(sentence).with_traceback(error.__traceback__) from None


def _explain_operation(text: str, model: keras.Model) -> str | None:
    if match := _LABEL.search(text):
        return _explain_label(int(match[1]), int(match[2]))
    if (match := _ID.search(text)) and (name := _embedding_at(match[1], int(match[3]), model)):
        return (
            f"The layer {name} looks up {match[2]}, and its ids are 0 to {int(match[3]) - 1}: "
            "give it a larger input_dim, or change the ids of the data."
        )
    if match := _SHAPES.search(text):
        return (
            f"The loss {match[1]!r} cannot combine the shapes {match[2]} and {match[3]}: targets "
            "need the shape of the outputs (for a sparse loss without the last dimension), and "
            "sample weights are one number an example."
        )
    if _TEXTS.search(text):
        return (
            "The labels (or the inputs) are strings, and the model needs numbers: number them by "
            "keras.layers.StringLookup(vocabulary=classes, num_oov_indices=0)."
        )
    return None


def _embedding_at(node: str, num_rows: int, model: keras.Model) -> str | None:
    # A name in a graph may have a suffix that the layer's has not.
    scope = node.rpartition("/")[2]
    layers = [one for one in model._flatten_layers() if isinstance(one, keras.layers.Embedding)]
    names = [one.name for one in layers if one.input_dim == num_rows]
    return next((name for name in names if scope.startswith(name)), None)


def _explain_label(label: int, num_classes: int) -> str:
    return (
        f"A label is {label}, and the model has {num_classes} outputs, so that labels are 0 to "
        f"{num_classes - 1}: number the classes from 0, or give the last layer a unit a class."
    )


def _find_label(state: State, source: Any) -> tuple[int, int] | None:
    """Returns a label that no output stands for, and the number of outputs; None: not found."""
    shape = getattr(state.model, "output_shape", None)
    if "sparse_categorical" not in _name(state.model.loss).lower() or not isinstance(shape, tuple):
        return None
    deadline = time.monotonic() + _MAX_SEARCH_SECS
    for batch in itertools.islice(iter(source.distributed), source.steps_per_epoch):
        _, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        for labels in state.strategy.experimental_local_results(y):
            values = np.asarray(labels)
            wrong = values[(values < 0) | (values >= shape[-1])]
            if wrong.size:
                return int(wrong.flat[0]), shape[-1]
        if time.monotonic() > deadline:
            break
    return None
