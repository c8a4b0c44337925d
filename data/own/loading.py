"""Examples of files, decoded once, as arrays in memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ..splits import Split
from .errors import FileError


def to_memory(split: Split, name: Callable[[int], str]) -> Split:
    """Returns the same examples with their inputs in memory.

    Args:
      split: With `decode`.
      name: Maps the number of an example to what it is called in a message.

    Raises:
      FileError: If an example cannot be decoded; the message names it.
    """
    try:
        x, y = split.take(np.arange(split.num_examples))
    except tf.errors.OpError as error:
        bad = name(_first_bad(split))
        raise FileError(f"{bad} cannot be decoded: take it out, or replace it.") from error
    return Split(x, y, split.num_classes)


def _first_bad(split: Split) -> int:
    """Returns the number of an example that cannot be decoded, by halving."""
    low, high = 0, split.num_examples
    while high - low > 1:
        middle = (low + high) // 2
        try:
            split.take(np.arange(low, middle))
            low = middle
        except tf.errors.OpError:
            high = middle
    return low
