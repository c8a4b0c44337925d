"""The attributes of a Keras callback, as far as a checkpoint can hold them."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from gradloop.files import json_text

from ..storage.trees import decode, encode

# Of an attribute that is larger, such as the data of an evaluation, no copy is kept.
_MAX_BYTES_OF_COPIES = 2**24


class Held(NamedTuple):
    """The value of an attribute, as a checkpoint holds it.

    Attributes:
      tree: Its structure.
      arrays: Its arrays; None: of a large one that is kept, `digests` alone are.
      digests: Of the arrays that are not there.
    """

    tree: Any
    arrays: list[np.ndarray] | None
    digests: tuple[Any, ...] = ()

    def value(self) -> Any:
        """Returns it anew: what is done to it does not come back."""
        assert self.arrays is not None
        return decode(self.tree, [array.copy() for array in self.arrays])

    def equals(self, other: Held | None) -> bool:
        """Returns whether a checkpoint would hold the same bits."""
        if other is None or json_text(self.tree) != json_text(other.tree):
            return False
        return self._digests() == other._digests()

    def kept(self) -> Held:
        """Returns a copy, without the arrays if they are large."""
        if sum(array.nbytes for array in self.arrays or ()) > _MAX_BYTES_OF_COPIES:
            return Held(self.tree, None, self._digests())
        return self._replace(arrays=[array.copy() for array in self.arrays or ()])

    def _digests(self) -> tuple[Any, ...]:
        return self.digests if self.arrays is None else tuple(map(_digest, self.arrays))


def _digest(array: np.ndarray) -> tuple[Any, ...]:
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return array.dtype, array.shape, hashlib.sha256(content.data).digest()


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


def copies_of(callback: keras.callbacks.Callback) -> dict[str, Held | None]:
    """Returns all attributes, to be kept; None: of one that a checkpoint cannot hold."""
    held: dict[str, Held | None] = dict.fromkeys(vars(callback))
    return held | {name: one.kept() for name, one in attributes_of(callback)}


def go_back(callback: keras.callbacks.Callback, before: dict[str, Held | None]) -> None:
    """Undoes what has changed since, as far as a checkpoint would hold it and copies are kept."""
    now = dict(attributes_of(callback))
    for name in now.keys() - before.keys():
        delattr(callback, name)
    for name, held in before.items():
        if held is None or held.arrays is None:
            continue
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
