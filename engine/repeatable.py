"""Repeatable: whether a new process makes the same batches of the same data, and what tells."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from .inputs import Inputs
from .traced_step import operations_of

# Stateful operations that give the same batches in a new process. Not `ShuffleDataset`: its seed is
# an input, which a graph does not show.
_HARMLESS = re.compile(
    r"(?!Shuffle|Random|Generator)\w*Dataset(V\d+)?|\w*PartitionedCall|If|While|Case|Assert|PrintV2"
    r"|VarHandleOp|ReadVariableOp|\w*Table(Find|Size)?(V\d+)?|ReadFile|MatchingFiles"
)
_DEFAULT_SEED = 87654321  # of TensorFlow's operations, where no global seed is set
# One batch is not enough to come to what these have drawn at the end of a pass.
_DRAWS_LATER = (
    "_RepeatDataset", "_ShuffleAndRepeatDataset", "CacheDataset", "_ConcatenateDataset",
)  # fmt: skip


def why_not_deterministic(inputs: Inputs) -> str | None:
    """Returns why a new process makes other batches of the same inputs; None if it makes the same.

    A person states it by an attribute `is_deterministic`; of arrays and `tf.data` the engine looks
    at seeds and operations.
    """
    told = getattr(inputs.source, "is_deterministic", None)
    if told is not None:
        return None if told else "is_deterministic is False"
    if inputs.is_of_arrays:
        has_seed = tf.compat.v1.get_seed(1)[0] != _DEFAULT_SEED
        return None if has_seed or not inputs.shuffles else "its arrays are shuffled without a seed"
    if not isinstance(inputs.source, tf.data.Dataset):
        return f"what a {type(inputs.source).__name__} gives in a new process is not known"
    return next(filter(None, map(_why_not, _all_of(inputs.source))), None)


def has_orders(inputs: Inputs) -> bool:
    """Returns whether each pass may have another order."""
    if not isinstance(inputs.source, tf.data.Dataset):
        return inputs.shuffles or not inputs.is_of_arrays
    return any(map(_moves, _all_of(inputs.source)))


def what_moves(source: Any) -> list[Any]:
    """Returns what has a place that iterators move: of `tf.data` what shuffles, if anything."""
    if not isinstance(source, tf.data.Dataset):
        return [source]
    return [one for one in _all_of(source) if _moves(one)] or [source]


def draws_later(source: Any) -> bool:
    """Returns whether a pass may draw orders after its first batch."""
    if not isinstance(source, tf.data.Dataset):
        return False
    later = [
        one for one in _all_of(source) if type(one).__name__ in _DRAWS_LATER or _holds_dataset(one)
    ]
    return any(_moves(below) for one in later for below in _all_of(one))


def _all_of(dataset: tf.data.Dataset) -> Iterator[tf.data.Dataset]:
    yield dataset
    for below in dataset._inputs():
        yield from _all_of(below)


def _moves(dataset: tf.data.Dataset) -> bool:
    """Returns whether it shuffles, as far as it can be known."""
    return hasattr(dataset, "_seed") or _holds_dataset(dataset)


def _holds_dataset(dataset: tf.data.Dataset) -> bool:
    """Returns whether a function of it has captured another one, which may shuffle."""
    captured = (tensor for f in dataset._functions() for tensor in f.function.captured_inputs)
    return any(tensor.dtype == tf.variant for tensor in captured)


def _why_not(dataset: tf.data.Dataset) -> str | None:
    if dataset.options().deterministic is False:
        return "its options say deterministic=False"
    seeds = getattr(dataset, "_seed", None), getattr(dataset, "_seed2", None)
    if all(seed is not None and int(seed) == 0 for seed in seeds):
        return "it shuffles without a seed"
    if _holds_dataset(dataset):
        return "a function in it takes from another dataset, of which nothing is known"
    for function in dataset._functions():
        for operation in operations_of(function.function.graph):
            is_stateful = operation.op_def is not None and operation.op_def.is_stateful
            if is_stateful and not _HARMLESS.fullmatch(operation.type):
                return f"it has the operation {operation.type}, which may give others"
    return None
