"""The attributes of a Keras callback, as far as a checkpoint can hold them."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from gradloop.files import json_text

from ..storage.trees import decode, encode


class Held(NamedTuple):
    """The value of an attribute, as a checkpoint holds it."""

    tree: Any
    arrays: list[np.ndarray]

    def value(self) -> Any:
        """Returns it anew: what is done to it does not come back."""
        return decode(self.tree, [array.copy() for array in self.arrays])

    def equals(self, other: Held) -> bool:
        """Returns whether a checkpoint would hold the same bits."""
        if json_text(self.tree) != json_text(other.tree):
            return False
        pairs = zip(self.arrays, other.arrays, strict=True)
        return all(_bits(one) == _bits(another) for one, another in pairs)


def _bits(array: np.ndarray) -> tuple[Any, ...]:
    return array.dtype, array.shape, array.tobytes()


def attributes_of(callback: keras.callbacks.Callback) -> Iterator[tuple[str, Held]]:
    """Yields name and value of each attribute that a checkpoint can hold."""
    # Keras sets `min_delta` anew once it knows the direction, and would do it twice: no settings.
    kinds = [kind for kind in type(callback).__mro__ if kind.__module__.startswith("keras.")]
    settings = {name for kind in kinds for name in inspect.signature(kind).parameters}
    for name, value in vars(callback).items():
        arrays: list[np.ndarray] = []
        with contextlib.suppress(TypeError):  # No checkpoint can hold it.
            if name not in settings:
                yield name, Held(encode(value, arrays), arrays)


def copies_of(callback: keras.callbacks.Callback) -> dict[str, Held]:
    """Returns what `attributes_of` yields, to be kept."""
    return {
        name: held._replace(arrays=[array.copy() for array in held.arrays])
        for name, held in attributes_of(callback)
    }


def go_back(callback: keras.callbacks.Callback, before: dict[str, Held]) -> None:
    """Undoes what has changed since, as far as a checkpoint would hold it."""
    now = dict(attributes_of(callback))
    for name in now.keys() - before.keys():
        delattr(callback, name)
    for name, held in before.items():
        is_changed = not held.equals(now[name]) if name in now else not hasattr(callback, name)
        if is_changed:
            set_attribute(callback, name, held.value())


def set_attribute(callback: keras.callbacks.Callback, name: str, value: Any) -> None:
    """Sets an attribute to what a checkpoint held of it."""
    present = getattr(callback, name, None)
    if isinstance(present, dict) and isinstance(value, dict):
        present.clear()  # It may be of a kind of its own.
        present.update(value)
    else:
        # A checkpoint makes lists of tuples.
        setattr(callback, name, tuple(value) if isinstance(present, tuple) else value)
