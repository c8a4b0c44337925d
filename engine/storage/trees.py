"""Trees of what a run must keep beside its variables, as JSON and arrays.

Dicts, lists, strings, numbers, booleans and None become JSON, in which an object whose only key
begins with `$` stands for what JSON does not have: an array, a number that is not finite, a dict
with other keys than strings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .archive import DamagedError

_ARRAY, _FLOAT, _DICT = "$array", "$float", "$dict"
_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def encode(  # noqa: PLR0911 - a line for each kind
    tree: Any, arrays: list[np.ndarray], place: str = ""
) -> Any:
    """Returns a tree as JSON has it, and appends its arrays to a list.

    NumPy scalars become numbers, tuples lists.

    Args:
      tree: What to encode.
      arrays: Gets the arrays of the tree, each of numbers.
      place: Where in the whole tree it stands, for the error.

    Raises:
      TypeError: If the tree holds something else; names its place.
    """
    if tree is None or isinstance(tree, bool | int | str):
        return tree
    if isinstance(tree, np.generic):
        return encode(_number(tree), arrays, place)
    if isinstance(tree, float):
        return tree if math.isfinite(tree) else {_FLOAT: str(tree)}
    if isinstance(tree, np.ndarray) and tree.dtype.kind in "biufcV" and not tree.dtype.names:
        arrays.append(tree)
        return {_ARRAY: len(arrays) - 1}
    if isinstance(tree, list | tuple):
        return [encode(item, arrays, f"{place}/{i}") for i, item in enumerate(tree)]
    if isinstance(tree, Mapping):
        items = [(key, encode(value, arrays, f"{place}/{key}")) for key, value in tree.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key in tree):
            return dict(items)
        return {_DICT: [[encode(key, arrays, place), value] for key, value in items]}
    raise TypeError(
        f"the state of {place or 'the run'} is a {type(tree).__name__}: a checkpoint holds dicts, "
        "lists, strings, numbers, None and NumPy arrays of numbers."
    )


def decode(tree: Any, arrays: Sequence[np.ndarray]) -> Any:
    """Returns the tree that `encode` was given.

    Raises:
      DamagedError: If it is none that `encode` returns.
    """
    if isinstance(tree, list):
        return [decode(item, arrays) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if not any(key.startswith("$") for key in tree):
        return {key: decode(value, arrays) for key, value in tree.items()}
    match list(tree.items()):
        case [("$array", int(index))] if 0 <= index < len(arrays):
            return arrays[index]
        case [("$float", str(text))] if text in _FLOATS:
            return _FLOATS[text]
        case [("$dict", list(pairs))]:
            return {decode(key, arrays): decode(value, arrays) for key, value in pairs}
    raise DamagedError("it holds a tree of unknown kind")


def _number(scalar: np.generic) -> Any:
    number = scalar.item()
    # Of bfloat16 and its like, `item` returns a scalar of NumPy again.
    return float(number) if isinstance(number, np.generic) else number
