"""What a person passes as arrays, as NumPy arrays that TensorFlow can take, or why they are none.

`fit` refuses lists, dates and objects with texts from deep inside, or after the first step: here
each is one line with the fix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
# An array, or a dict, list or tuple of arrays, nested like the inputs or outputs of a model.
Tree = Any

# TensorFlow's composite tensors; those of scipy are known by their methods.
_TO_DENSE = {"SparseTensor": "tf.sparse.to_dense({})", "RaggedTensor": "{}.to_tensor()"}


def to_arrays(tree: Tree | None, name: str) -> Tree | None:
    """Returns a structure of arrays, each with one row an example, with tuples for lists.

    As in `fit`, floating-point arrays are cast to `keras.config.floatx()`.

    Args:
      tree: What was passed.
      name: The argument that it was passed for.

    Raises:
      ValueError: If something in it is no array of numbers or strings.
    """
    if tree is None:
        return None
    if isinstance(tree, list | tuple) and _holds_values(tree):
        first = keras.tree.flatten(tree)[0]
        raise ValueError(
            f"{name}: expected an array, got a {type(tree).__name__} of {type(first).__name__}; "
            f"pass np.array({name})"
        )
    tree = lists_to_tuples(tree)
    arrays = [_to_array(value, _show(name, path)) for path, value in _flatten(tree)]
    return keras.tree.pack_sequence_as(tree, arrays)


def lists_to_tuples(tree: Tree) -> Tree:
    """Replaces lists by tuples: tf.data would stack a list into one tensor."""
    if isinstance(tree, Mapping):
        return {key: lists_to_tuples(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return tuple(lists_to_tuples(value) for value in tree)
    return tree


def is_nested(tree: Tree) -> bool:
    """Returns whether this is a structure of arrays, not a single array."""
    return isinstance(tree, Mapping | list | tuple)


def describe(trees: tuple[Tree | None, Tree | None, Tree | None]) -> dict[str, str]:
    """Returns dtype and shape of each array of `(x, y, sample_weight)`, by its name."""
    return {
        _show(name, path): f"{array.dtype} of shape {array.shape}"
        for name, tree in zip(("x", "y", "sample_weight"), trees, strict=True)
        if tree is not None
        for path, array in _flatten(tree)
    }


def check_alike(found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Raises ValueError if arrays differ from those that they replace, as `describe` has them."""
    for name in [*expected, *(name for name in found if name not in expected)]:
        if found.get(name) != expected.get(name):
            raise ValueError(
                f"{name}: expected {expected.get(name, 'nothing')} as in make_dataset, got "
                f"{found.get(name, 'nothing')}; for other shapes or dtypes, make another dataset"
            )


def _flatten(tree: Tree) -> list[tuple[tuple[Any, ...], Any]]:
    """Returns path and value of each leaf."""
    leaves: list[tuple[tuple[Any, ...], Any]] = keras.tree.flatten_with_path(tree)
    return leaves


def _holds_values(tree: Tree) -> bool:
    leaves = keras.tree.flatten(tree)
    return bool(leaves) and all(isinstance(v, str | bytes | bool | int | float) for v in leaves)


def _show(name: str, path: tuple[Any, ...]) -> str:
    return name + "".join(f"[{key!r}]" for key in path)


def _to_array(value: Any, name: str) -> Array:
    kind = type(value).__name__
    if hasattr(value, "tocoo") or kind in _TO_DENSE:
        dense = _TO_DENSE.get(kind, "{}.toarray()").format(name)
        raise ValueError(
            f"{name}: expected a dense array, got a {kind}; pass {dense}, or give it to "
            "engine.fit, which trains on it as it is"
        )
    array = np.asarray(value)
    if array.ndim == 0:
        shown = array if array.dtype.kind in "biufcSU" else f"a {kind}"
        raise ValueError(f"{name}: expected one row per example, got the single value {shown}")
    _check_kind(array, name)
    if kind == "Series" and array.ndim == 1:  # of pandas; a column, as in fit
        array = array[:, None]
    if np.issubdtype(array.dtype, np.floating):
        return array.astype(keras.config.floatx(), copy=False)
    return array


def _check_kind(array: Array, name: str) -> None:
    """Raises ValueError if TensorFlow has no dtype for the elements."""
    if array.dtype.kind in "mM":
        unit = "np.timedelta64(1, 's')"
        what = (
            f"{name} / {unit}" if array.dtype.kind == "m" else f"({name} - {name}.min()) / {unit}"
        )
        raise ValueError(
            f"{name}: expected numbers, got {array.dtype}; pass a duration, such as {what}"
        )
    if array.dtype.kind == "V":
        raise ValueError(
            f"{name}: expected numbers, got the fields {array.dtype.names}; pass one array per "
            "field in a dict"
        )
    if array.dtype.kind != "O":
        return
    others = [v for v in array.flat if not isinstance(v, str | bytes)]
    if others:
        raise ValueError(
            f"{name}: expected numbers or strings, got objects such as {type(others[0]).__name__}; "
            f"pass {name}.astype('float32') if they are numbers, rows of one length, or one array "
            "per column in a dict"
        )
