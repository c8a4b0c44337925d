"""What `--mode predict` writes: tables, and pictures where they make sense."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gradloop.data.splits import Split
from gradloop.files import naming

from . import plots
from .log import Log
from .report import draw
from .run_folder import RunFolder

_RANK_OF_SCORES = 2  # an example, a class


@dataclasses.dataclass(frozen=True)
class Classes:
    """Predicted classes.

    Attributes:
      labels: True classes, shape `[n]`.
      probabilities: Shape `[n, num_classes]`.
      names: Of the classes, if they have some.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    names: Sequence[str] | None

    @property
    def predicted(self) -> np.ndarray:
        """The most likely class of each example."""
        return np.asarray(self.probabilities.argmax(axis=1))

    def rows(self) -> Iterable[Sequence[Any]]:
        """Yields the lines of the table."""
        yield ["label", "predicted", *(f"p{i}" for i in range(self.probabilities.shape[1]))]
        columns = self.labels.tolist(), self.predicted.tolist(), self.probabilities.tolist()
        yield from ([label, guess, *row] for label, guess, row in zip(*columns, strict=True))

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns what predictions.npz holds."""
        arrays = {
            "labels": self.labels, "predicted": self.predicted, "probabilities": self.probabilities
        }  # fmt: skip
        return arrays if self.names is None else arrays | {"class_names": np.array(self.names)}


def write_predictions(
    folder: RunFolder,
    log: Log,
    split: Split,
    predictions: Any,
    class_names: Sequence[str] | None = None,
    *,
    are_logits: bool = False,
) -> float | None:
    """Writes predictions.npz, predictions.csv and pictures of what was predicted.

    Of classes: `label`, `predicted` and a column a class, the confusion matrix, and the worst
    mistakes if the inputs are images. Of numbers: the true and the predicted ones, and a picture of
    both. Of all else, such as several outputs: the arrays alone.

    Args:
      folder: Where files go.
      log: Where lines go.
      split: The examples. Only those that are drawn are read again.
      predictions: What the model returned for them: an array, or a structure of arrays.
      class_names: Of the classes.
      are_logits: See `find_classes`.

    Returns:
      The accuracy; None if no classes were predicted.
    """
    targets = split.labels()
    classes = find_classes(targets, predictions, class_names, are_logits=are_logits)
    if classes is not None:
        _write_table(folder, classes.rows())
        _write_arrays(folder, classes.arrays())
        if folder.draws:
            _draw_classes(folder, log, split, classes)
        return float((classes.predicted == classes.labels).mean())
    numbers = _find_numbers(targets, predictions)
    if numbers is None:
        _write_arrays(folder, dict(_named("predictions", predictions)))
        return None
    _write_table(folder, _number_rows(*numbers))
    _write_arrays(folder, dict(zip(("targets", "predictions"), numbers, strict=True)))
    if folder.draws:
        draw(log, plots.plot_numbers, *numbers, folder.plots / "predicted_over_true.png")
    return None


def find_classes(
    targets: Any,
    predictions: Any,
    class_names: Sequence[str] | None,
    *,
    are_logits: bool = False,
) -> Classes | None:
    """Returns the classes that were predicted; None if it was something else.

    Scores of which a row does not sum to one, such as logits, become probabilities by softmax; one
    number from 0 to 1 is the probability of the second of two classes.

    Args:
      targets: Class numbers, shape `[n]`, or one-hot rows.
      predictions: Shape `[n, num_classes]`, or `[n, 1]` of two classes.
      class_names: Of the classes.
      are_logits: Whether one number is the logit of the second class, and no probability.
    """
    if not isinstance(targets, np.ndarray) or not isinstance(predictions, np.ndarray):
        return None
    if predictions.ndim != _RANK_OF_SCORES or not len(predictions):
        return None
    labels, scores = _as_labels(targets[: len(predictions)]), predictions
    if labels is None or labels.min() < 0:
        return None
    if scores.shape[1] == 1:
        if are_logits:
            scores = 0.5 + 0.5 * np.tanh(0.5 * scores)  # the sigmoid, without an overflow
        if labels.max() > 1 or not (scores >= 0).all() or not (scores <= 1).all():
            return None
        scores = np.concatenate([1 - scores, scores], axis=1)
    if labels.max() >= scores.shape[1]:
        return None
    names = class_names if class_names and len(class_names) == scores.shape[1] else None
    return Classes(labels, _as_probabilities(scores), names)


def _as_labels(targets: np.ndarray) -> np.ndarray | None:
    if targets.ndim > 1 and targets.shape[1:] == (1,) * (targets.ndim - 1):
        targets = targets.reshape(len(targets))
    if targets.ndim == 1 and (np.issubdtype(targets.dtype, np.integer) or targets.dtype == bool):
        return targets.astype(np.int64)
    is_one_hot = (
        targets.ndim == _RANK_OF_SCORES
        and bool(np.isin(targets, (0, 1)).all())
        and bool((targets.sum(axis=1) == 1).all())
    )
    return targets.argmax(axis=1) if is_one_hot else None


def _as_probabilities(scores: np.ndarray) -> np.ndarray:
    # float16 and bfloat16 have three digits.
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1, dtype=float), 1.0, atol=0.02):
        return scores
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _find_numbers(targets: Any, predictions: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns true and predicted numbers as tables of the same shape; None if they are none."""
    if not isinstance(targets, np.ndarray) or not isinstance(predictions, np.ndarray):
        return None
    if targets.dtype.kind not in "iufb" or not len(predictions):
        return None
    flat = [array.reshape(len(array), -1) for array in (targets[: len(predictions)], predictions)]
    return (flat[0], flat[1]) if flat[0].shape == flat[1].shape else None


def _number_rows(targets: np.ndarray, predictions: np.ndarray) -> Iterable[Sequence[Any]]:
    size = targets.shape[1]
    names = [""] if size == 1 else [f"_{index}" for index in range(size)]
    yield [*(f"true{name}" for name in names), *(f"predicted{name}" for name in names)]
    yield from np.concatenate([targets, predictions], axis=1).tolist()


def _named(name: str, tree: Any) -> Iterable[tuple[str, np.ndarray]]:
    """Yields the arrays of a structure, with the ways to them as names."""
    if isinstance(tree, dict | list | tuple):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in items:
            yield from _named(f"{name}/{key}", value)
    else:
        yield name, np.asarray(tree)


def _draw_classes(folder: RunFolder, log: Log, split: Split, classes: Classes) -> None:
    num_classes = classes.probabilities.shape[1]
    draw(
        log, plots.plot_confusion_matrix, classes.labels, classes.predicted, num_classes,
        folder.plots / "confusion_matrix.png", class_names=classes.names,
    )  # fmt: skip
    example = split.take([0])[0]
    if isinstance(example, np.ndarray) and plots.is_of_images(example):
        draw(
            log, plots.plot_worst_mistakes, lambda indices: split.take(indices)[0], classes.labels,
            classes.probabilities, folder.plots / "worst_mistakes.png", class_names=classes.names,
        )  # fmt: skip


def _write_table(folder: RunFolder, rows: Iterable[Sequence[Any]]) -> None:
    path = folder.path / "predictions.csv"
    with naming(path), path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _write_arrays(folder: RunFolder, arrays: dict[str, np.ndarray]) -> None:
    path = folder.path / "predictions.npz"
    with naming(path):
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
