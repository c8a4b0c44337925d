"""Examples of files, decoded once, as arrays in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from gradloop.machine import num_cores

from ..splits import Split
from .errors import FileError

_CHUNK = 256


def to_memory(split: Split, name: Callable[[int], str]) -> Split:
    """Returns the same examples with their inputs in memory; TensorFlow decodes them in parallel.

    Args:
      split: With `decode`.
      name: Maps the number of an example to what it is called in a message.

    Raises:
      FileError: If an example cannot be decoded; the message names it.
    """
    decode, num = split.decode, split.num_examples
    assert decode is not None
    refs = (split.x,) if split.y is None else (split.x, split.y)
    chunks = tf.data.Dataset.from_tensor_slices(refs).batch(_CHUNK)
    chunks = chunks.map(
        lambda x, y=None: _without_none(*decode(x, y)), num_parallel_calls=num_cores()
    )
    whole: list[Any] = []
    start = 0
    try:
        for chunk in chunks.as_numpy_iterator():
            leaves = tf.nest.flatten(chunk)
            whole = whole or [np.empty((num, *a.shape[1:]), a.dtype) for a in leaves]
            for to, values in zip(whole, leaves, strict=True):
                to[start : start + len(values)] = values
            start += _CHUNK
    except tf.errors.OpError as error:
        raise _name_bad(split, start, name) from error
    x, y = tf.nest.pack_sequence_as(chunks.element_spec, whole)
    return Split(x, y, split.num_classes)


def _without_none(x: Any, y: Any) -> tuple[Any, Any]:
    assert y is not None, "decode makes it, or the index has it"
    return x, y


def _name_bad(split: Split, start: int, name: Callable[[int], str]) -> FileError:
    """Returns the error for the first example from a place on that cannot be decoded."""
    for index in range(start, split.num_examples):
        try:
            split.take([index])
        except tf.errors.OpError:
            return FileError(f"{name(index)} cannot be decoded: take it out, or replace it.")
    return FileError(f"{name(start)} has changed while it was read.")
