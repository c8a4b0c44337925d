"""Examples that references stand for, as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from gradloop.machine import num_cores

from .batches import Decode
from .conversion import Tree

_CHUNK = 256


def decode_all(decode: Decode, x: Tree, y: Tree | None) -> tuple[Tree, Tree]:
    """Returns the inputs and targets of some examples, decoded in parallel, in their order.

    Args:
      decode: See `pipeline.make_dataset`; what it returns has inputs and targets.
      x: References, at least one.
      y: Targets; None if `decode` makes them.

    Raises:
      tf.errors.OpError: If one cannot be decoded.
    """
    refs = (x,) if y is None else (x, y)
    chunks = tf.data.Dataset.from_tensor_slices(refs).batch(_CHUNK)
    chunks = chunks.map(lambda x, y=None: decode(x, y), num_parallel_calls=num_cores())
    whole: list[Any] = []
    start = 0
    for chunk in chunks.as_numpy_iterator():
        leaves = tf.nest.flatten(chunk)
        whole = whole or [np.empty((len(x), *a.shape[1:]), a.dtype) for a in leaves]
        for to, values in zip(whole, leaves, strict=True):
            to[start : start + len(values)] = values
        start += _CHUNK
    decoded: tuple[Tree, Tree] = tf.nest.pack_sequence_as(chunks.element_spec, whole)
    return decoded
