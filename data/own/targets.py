"""Targets: class numbers with the names of the classes, or numbers to be predicted."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import FileError, shown

Array = npt.NDArray[Any]
# Of integers, more different ones are rather amounts: to guess would waste somebody's training.
MOST_CLASSES_UNASKED = 1000
_SAY_NUMBERS = "pass --target_type numbers if they are to be predicted as numbers"


@dataclasses.dataclass(frozen=True)
class Targets:
    """The targets of the parts of a dataset, in one encoding.

    Attributes:
      parts: `y` of each part: int32 class numbers, or float32.
      num_classes: None for numbers.
      class_names: None if the classes are called by their numbers, or there are none.
    """

    parts: list[Array]
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None


def encode(
    parts: list[Array], where: str, target_type: str | None, class_names: Any = None
) -> Targets:
    """Returns targets as class numbers or as float32.

    Strings, booleans and integers are classes, and floating-point values are numbers, unless
    `target_type` says otherwise. Rows with a single 1 among zeros are classes, too. Integers of
    more than one value an example stay as they are.

    Args:
      parts: Targets as read: the training examples first.
      where: What they are called in messages.
      target_type: "classes", "numbers" or None.
      class_names: Names of classes, by number: floating-point values with them are classes, too,
        and strings are some of them, which are numbered in this order.

    Raises:
      FileError: If they are neither, or there is one class alone.
    """
    parts = [_flat(y) for y in parts]
    names = None if class_names is None else _names(class_names, where)
    kinds = {y.dtype.kind for y in parts}
    if not kinds <= set("biufSU"):
        raise FileError(f"{where}: expected numbers or strings, got {parts[0].dtype}.")
    is_hot = target_type != "numbers" and all(_is_one_hot(y) for y in parts)
    if is_hot:
        return _numbered([y.argmax(1) for y in parts], where, parts[0].shape[1], names)
    if kinds & set("SU"):
        return _named(parts, where, target_type, names)
    is_of_rows, is_float = parts[0].ndim > 1, "f" in kinds
    if is_of_rows and is_float and target_type == "classes":
        raise FileError(
            f"{where}: expected one class an example, by number, by name, or as a row with a "
            f"single 1 among zeros; got rows of shape {parts[0].shape[1:]}."
        )
    is_guessed = target_type is None and is_float and (names is None or is_of_rows)
    if target_type == "numbers" or is_guessed:
        return Targets([_finite(y, where) for y in parts])
    return Targets(parts) if is_of_rows else _integers(parts, where, target_type, names)


def _names(class_names: Any, where: str) -> tuple[str, ...]:
    names = np.asarray(class_names)
    found = tuple(_text(names).tolist()) if names.ndim == 1 else ()
    if not found or len(set(found)) < len(found):
        raise FileError(
            f"{where}: class_names={class_names!r}: expected a list of names, another for each "
            "class."
        )
    return found


def _flat(y: Array) -> Array:
    return y[:, 0] if y.ndim > 1 and y.shape[1:] == (1,) else y


def _is_one_hot(y: Array) -> bool:
    if y.ndim != 2 or y.dtype.kind not in "biuf":
        return False
    return bool(np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all())


def _finite(y: Array, where: str) -> Array:
    with np.errstate(over="ignore"):
        floats = y.astype(np.float32)
    bad = np.argwhere(~np.isfinite(floats))
    if len(bad):
        raise FileError(
            f"{where}: example {bad[0][0] + 1} has {y[tuple(bad[0])]} ({len(bad)} such in all): "
            "leave out the examples without a target, or correct them."
        )
    return floats


def _named(
    parts: list[Array], where: str, target_type: str | None, names: tuple[str, ...] | None
) -> Targets:
    if target_type == "numbers":
        raise FileError(f"{where}: expected numbers, got strings such as {parts[0][0]!r}.")
    parts = [_text(y) for y in parts]
    known = np.unique(parts[0]) if names is None else np.array(names)
    _check_known(np.unique(np.concatenate(parts)), known, where, names is not None)
    order = np.argsort(known)
    numbers = [order[np.searchsorted(known[order], y)] for y in parts]
    return _numbered(numbers, where, len(known), tuple(known.tolist()))


def _text(y: Array) -> Array:
    return np.char.decode(y, "utf-8", "replace") if y.dtype.kind == "S" else y.astype(str)


def _check_known(found: Array, known: Array, where: str, are_named: bool = False) -> None:
    unknown = np.setdiff1d(found, known)
    if len(unknown):
        lacks = "is none of class_names" if are_named else "is in no training example, which have"
        fix = "add it there" if are_named else "add such examples"
        raise FileError(
            f"{where}: the class {unknown[0].item()!r} {lacks} {shown(known)}: correct the label, "
            f"or {fix}."
        )


def _integers(parts: list[Array], where: str, target_type: str | None, class_names: Any) -> Targets:
    """Class numbers as they are if they count from 0; others get the names of their values."""
    whole = [_whole(y, where) for y in parts]
    known = np.unique(whole[0])
    is_counted = class_names is not None or (known[0] == 0 and known[-1] < 2 * len(known))
    if len(known) > MOST_CLASSES_UNASKED and target_type is None and class_names is None:
        raise FileError(
            f"{where}: {len(known):,} different integers: pass --target_type classes for as many "
            f"classes, or {_SAY_NUMBERS}."
        )
    if is_counted:
        return _numbered(whole, where, int(known[-1]) + 1, class_names)
    _check_known(np.unique(np.concatenate(whole)), known, where)
    numbers = [np.searchsorted(known, y).astype(np.int32) for y in whole]
    return _numbered(numbers, where, len(known), tuple(str(value) for value in known))


def _whole(y: Array, where: str) -> Array:
    if y.dtype.kind != "f":
        return y.astype(np.int64)
    bad = np.flatnonzero(~(np.isfinite(y) & (y == np.round(y))))
    if bad.size:
        raise FileError(
            f"{where}: expected classes, got {y[bad[0]]} for example {bad[0] + 1}: {_SAY_NUMBERS}."
        )
    return y.astype(np.int64)


def _numbered(parts: list[Array], where: str, num_classes: int, class_names: Any) -> Targets:
    names = None if class_names is None else tuple(str(name) for name in class_names)
    num_classes = num_classes if names is None else len(names)
    if len(np.unique(parts[0])) == 1:
        raise FileError(
            f"{where}: all examples are of one class: add examples of others, or {_SAY_NUMBERS}."
        )
    for y in parts:
        bad = np.flatnonzero((y < 0) | (y >= num_classes))
        if bad.size:
            raise FileError(
                f"{where}: expected class numbers 0 to {num_classes - 1}, got {y[bad[0]]} for "
                f"example {bad[0] + 1}: correct the label"
                + (", or class_names." if names else f", or {_SAY_NUMBERS}.")
            )
    return Targets([y.astype(np.int32) for y in parts], num_classes, names)
