"""Checks, weights and splits of NumPy arrays; nothing here is a tensor.

A failed check raises a `ValueError` of one line that names the value, what is legal and the fix,
before the mistake can surface as a shape error deep inside a compiled step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import keras
import numpy as np

from .conversion import Array, Tree, is_nested, lists_to_tuples, to_arrays


class Examples(NamedTuple):
    """Checked arrays, all with `num_examples` rows.

    Attributes:
      x: Inputs.
      y: Labels or targets; None for `x` alone.
      sample_weight: One array, or one per output; None if all examples weigh the same.
      num_classes: None, a number, or one of these per output; where it is a number, `y` holds
        int32 labels of shape `(n,)`.
      num_examples: Rows of each array.
    """

    x: Tree
    y: Tree | None
    sample_weight: Tree | None
    num_classes: Tree
    num_examples: int


def prepare(
    x: Tree,
    y: Tree | None,
    *,
    num_classes: Tree,
    sample_weight: Tree | None,
    class_weight: Mapping[int, float] | None,
) -> Examples:
    """Checks the arrays and converts them to the form that the pipeline gathers from.

    As in `fit`, lists become tuples and floating-point arrays are cast to `keras.config.floatx()`.
    Labels for one-hot encoding become int32 of shape `(n,)`. The arguments are those of
    `pipeline.make_dataset`.

    Raises:
      ValueError: If the arrays are empty or differ in length, `num_classes` does not cover the
        labels, or `fit` would refuse the weights.
    """
    given = {"x": x, "y": y, "sample_weight": sample_weight}
    x, y, sample_weight = (to_arrays(tree, name) for name, tree in given.items())
    if x is None:
        raise ValueError("x: expected an array or a structure of arrays, got None; pass the inputs")
    if y is None and not (num_classes is sample_weight is class_weight is None):
        raise ValueError("y: expected labels with num_classes or weights, got None; pass y")
    num_examples = _common_length({"x": x, "y": y, "sample_weight": sample_weight})
    sample_weight = _weights(y, sample_weight, class_weight)
    if num_classes is not None:
        num_classes = _match_outputs(num_classes, y)
        y = keras.tree.map_structure_up_to(y, _one_hot_labels, y, num_classes)
    return Examples(x, y, sample_weight, num_classes, num_examples)


def train_validation_split(arrays: Tree, validation_split: float) -> tuple[Tree, Tree]:
    """Splits off the last part of every array, as `fit(validation_split=...)` does.

    Args:
      arrays: An array or a structure of arrays, such as `(x, y, sample_weight)`; None stays None.
      validation_split: Fraction above 0 and below 1. Training keeps `floor(n * (1 - split))`
        examples.

    Returns:
      `(train_arrays, validation_arrays)`, views of the same memory.

    Raises:
      ValueError: If the fraction is illegal, or one of the two parts would be empty.

    Example:
      >>> train, validation = pipeline.train_validation_split(np.arange(5), 0.4)
      >>> train, validation
      (array([0, 1, 2]), array([3, 4]))
    """
    if not 0 < validation_split < 1:
        raise ValueError(
            f"validation_split: expected above 0 and below 1, got {validation_split}; "
            "to train without validation, leave it out"
        )
    num_examples = _common_length({"arrays": arrays})
    split_at = math.floor(num_examples * (1.0 - validation_split))
    if split_at in {0, num_examples}:
        raise ValueError(
            f"validation_split: {validation_split} of {num_examples} examples leaves one part "
            "empty; pass more examples or another fraction"
        )
    parts = (slice(split_at), slice(split_at, None))
    train, validation = (
        keras.tree.map_structure(lambda a, part=part: None if a is None else a[part], arrays)
        for part in parts
    )
    return train, validation


def _common_length(named: Mapping[str, Tree | None]) -> int:
    lengths = {
        name: sorted({len(a) for a in keras.tree.flatten(tree) if a is not None})
        for name, tree in named.items()
        if tree is not None
    }
    distinct = {length for found in lengths.values() for length in found}
    if len(distinct) > 1:
        listed = ", ".join(f"{name} has {_join(found)}" for name, found in lengths.items())
        raise ValueError(
            f"arrays differ in length: {listed}; pass one row per example in each (a list is one "
            "array an input or output: np.stack joins rows)"
        )
    if distinct in (set(), {0}):
        raise ValueError("arrays: expected at least one example, got none")
    return distinct.pop()


def _join(lengths: list[int]) -> str:
    return " and ".join(str(length) for length in lengths)


def _match_outputs(num_classes: Tree, y: Tree) -> Tree:
    if not is_nested(y) or is_nested(num_classes):
        return lists_to_tuples(num_classes)
    raise ValueError(
        f"num_classes: expected a number for each of the outputs in y, got {num_classes}; use "
        "None for an output whose labels stay as they are"
    )


def _one_hot_labels(y: Array, num_classes: int | None) -> Array:
    if num_classes is None:
        return y
    if num_classes < 1:
        raise ValueError(f"num_classes: expected 1 or more, got {num_classes}")
    if y.dtype.kind in "OSU":
        raise ValueError(
            f"labels: expected integers 0 to {num_classes - 1}, got strings; number them with "
            "classes, y = np.unique(y, return_inverse=True)"
        )
    if y.dtype.kind not in "iub":
        raise ValueError(
            f"labels: expected integers 0 to {num_classes - 1}, got {y.dtype}; cast them, or omit "
            "num_classes if they are not class numbers"
        )
    labels = y[:, 0] if y.shape[1:] == (1,) else y
    if labels.ndim != 1:
        raise ValueError(
            f"labels: expected shape (n,), got {y.shape}; omit num_classes if they are one-hot "
            "already"
        )
    bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if bad.size:
        raise ValueError(
            f"labels: expected 0 to {num_classes - 1}, got {labels[bad[0]]} at index {bad[0]} "
            f"({bad.size} in total); correct the labels or num_classes={num_classes}"
        )
    return labels.astype(np.int32)


def _weights(
    y: Tree, sample_weight: Tree | None, class_weight: Mapping[int, float] | None
) -> Tree | None:
    """Follows the rules of Keras's array adapter (`trainers/data_adapters`)."""
    if class_weight is not None:
        if sample_weight is not None:
            raise ValueError(
                "class_weight and sample_weight: expected one of them, got both; multiply "
                "sample_weight by the weight of the class yourself"
            )
        if is_nested(y):
            raise ValueError(
                "class_weight: expected a single output, got a structure for y; pass "
                "sample_weight with one array per output"
            )
        return _class_weights(y, class_weight)
    if sample_weight is None or not is_nested(y):
        return sample_weight
    if not is_nested(sample_weight):
        if sample_weight.shape[1:] not in {(), (1,)}:
            raise ValueError(
                f"sample_weight: expected shape (n,) for several outputs, got "
                f"{sample_weight.shape}; pass one array per output"
            )
        return keras.tree.map_structure(lambda _: sample_weight, y)
    keras.tree.assert_same_structure(y, sample_weight)
    return sample_weight


def _class_weights(y: Array, class_weight: Mapping[int, float]) -> Array:
    """Returns one weight per example, as Keras does: a missing class weighs 1.

    Args:
      y: Class numbers, or one-hot rows.
      class_weight: Class to weight.
    """
    if y.ndim > 1:
        y = y[..., 0] if y.shape[-1] == 1 else np.argmax(y, axis=-1)
    classes, inverse = np.unique(np.round(y).astype(np.int32), return_inverse=True)
    weights = [class_weight.get(int(label), 1.0) for label in classes]
    return np.asarray(weights, dtype=keras.config.floatx())[inverse]
