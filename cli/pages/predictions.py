"""What a run predicted for the test set: which classes it takes for which, and where it errs most.

Read from predictions.npz: `labels`, `predicted`, `probabilities`, and `class_names` if there are
some; of numbers, `targets` and `predictions`.
"""

from __future__ import annotations

import dataclasses
import shlex
import zipfile
import zlib
from typing import Any

import numpy as np

from . import sections
from .markup import Markup, table, tag
from .run_files import RunFiles
from .words import show_number, show_value

MAX_CELLS = 30
_MAX_ROWS = 12
# A matrix of more takes too much memory.
_MAX_CLASSES = 2000
_MISTAKES = ("plots/worst_mistakes.png", "The mistakes that the model was surest of")
_NUMBERS = ("plots/predicted_over_true.png", "What was predicted, over what is true")


@dataclasses.dataclass(frozen=True)
class Classified:
    """Classes that were predicted.

    Attributes:
      labels: True classes, shape `[n]`.
      predicted: Shape `[n]`.
      confidence: Of what was predicted, shape `[n]`; None if it is not known.
      names: Of the classes.
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray | None
    names: list[str]

    @property
    def counts(self) -> np.ndarray:
        """How often each class, in a row, was taken for which."""
        size = len(self.names)
        flat = self.labels.astype(np.int64) * size + self.predicted.astype(np.int64)
        return np.bincount(flat, minlength=size**2).reshape(size, size)


def section(run: RunFiles) -> Markup | None:
    """Returns the section; without predictions, how to make them, if the run can make them."""
    arrays = read(run)
    if not arrays:
        return _how_to(run)
    found = _classified(arrays)
    if found is not None:
        return sections.section("Predictions", *_of_classes(run, found))
    return sections.section("Predictions", *_of_numbers(run, arrays))


def read(run: RunFiles) -> dict[str, Any]:
    """Returns the arrays of predictions.npz; {} if it is missing or damaged."""
    try:
        with np.load(run.path / "predictions.npz", allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError, zlib.error):
        return {}


def _of_classes(run: RunFiles, found: Classified) -> list[Markup]:
    counts = found.counts
    right = np.trace(counts) / max(counts.sum(), 1)
    matrix: list[Markup]
    if len(counts) <= MAX_CELLS:
        matrix = [_matrix(found, counts)]
    else:
        matrix = sections.pictures(run, [_confusion_picture(len(counts))])
    title = tag("h3", "Confusion matrix")
    note = tag("p", f"{counts.sum():,} examples, {right:.2%} right. Rows are the truth.")
    confused = [tag("div", title, note, *matrix), _confusions(found, counts)]
    mistakes = [_mistakes(found), *sections.pictures(run, [_MISTAKES])]
    return [tag("div", *parts, class_="side") for parts in (confused, mistakes)]


def _of_numbers(run: RunFiles, arrays: dict[str, Any]) -> list[Markup]:
    targets, predictions = arrays.get("targets"), arrays.get("predictions")
    if targets is None or predictions is None or targets.shape != predictions.shape:
        shapes = [[name, show_value(list(array.shape))] for name, array in arrays.items()]
        return [table(["in predictions.npz", "shape"], shapes, caption="What was predicted")]
    error = float(np.mean(np.abs(targets - predictions)))
    text = f"{len(targets):,} examples, mean absolute error {show_number(error)}."
    return [tag("p", text), *sections.pictures(run, [_NUMBERS])]


def _classified(arrays: dict[str, Any]) -> Classified | None:
    """Returns the classes that were predicted; None if it was something else."""
    labels, predicted = arrays.get("labels"), arrays.get("predicted")
    if labels is None or predicted is None or labels.shape != predicted.shape or not labels.size:
        return None
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or predicted.dtype.kind not in "iu":
        return None
    if min(labels.min(), predicted.min()) < 0:
        return None
    size = int(max(labels.max(), predicted.max())) + 1
    probabilities, confidence = arrays.get("probabilities"), None
    if probabilities is not None and probabilities.ndim == 2 and len(probabilities) == len(labels):
        size = max(size, probabilities.shape[1])
        confidence = probabilities.max(axis=1)
    if size > _MAX_CLASSES:
        return None
    names = [str(name) for name in np.atleast_1d(arrays.get("class_names", ()))]
    if len(names) < size:
        names = [str(index) for index in range(size)]
    return Classified(labels, predicted, confidence, names)


def _how_to(run: RunFiles) -> Markup | None:
    has_test = "test_logs" in run.summary or run.summary.get("status") not in (
        "completed",
        "stopped",
    )
    if not has_test or not (run.path / "checkpoints").is_dir():
        return None
    command = f"python train.py --mode predict --run_dir {shlex.quote(str(run.path))} --resume"
    text = "There are no predictions yet. This command makes them, and this page anew:"
    return sections.section("Predictions", tag("p", text), tag("pre", command, tabindex="0"))


def _matrix(found: Classified, counts: np.ndarray) -> Markup:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    is_long = max(map(len, found.names)) > 4
    heads = [tag("span", name, class_="rotated" if is_long else None) for name in found.names]
    rows = [
        [name, *(_cell(int(counts[i, j]), float(shares[i, j])) for j in range(len(counts)))]
        for i, name in enumerate(found.names)
    ]
    caption = "Confusion matrix: true classes in rows, predicted classes in columns"
    return table(["", *heads], rows, caption=caption, class_="matrix")


def _cell(count: int, share: float) -> Markup | None:
    """Returns a cell, darker with the root of the share: rare mistakes can be seen, too."""
    if not count:
        return None
    depth = share**0.5
    return tag(
        "div", str(count), tag("small", f"{share:.1%}"),
        class_="cell strong" if depth > 0.6 else "cell", style=f"--share:{depth:.2f}",
    )  # fmt: skip


def _confusion_picture(num_classes: int) -> tuple[str, str]:
    return "plots/confusion_matrix.png", f"Confusion matrix of {num_classes} classes"


def _confusions(found: Classified, counts: np.ndarray) -> Markup | None:
    """Returns which classes are taken for which most often."""
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = [i for i in np.argsort(-wrong, axis=None, kind="stable")[:_MAX_ROWS] if wrong.flat[i]]
    rows = []
    for index in order:
        true, guess = divmod(int(index), len(counts))
        share = wrong[true, guess] / counts[true].sum()
        rows.append(
            [found.names[true], found.names[guess], f"{wrong[true, guess]:,}", f"{share:.1%}"]
        )
    if not rows:
        return None
    header = ["true", "predicted", "times", "of the class"]
    body = table(header, rows, caption="Most frequent confusions", class_="numbers")
    return tag("div", tag("h3", "Most frequent confusions"), body)


def _mistakes(found: Classified) -> Markup | None:
    if found.confidence is None:
        return None
    wrong = np.flatnonzero(found.labels != found.predicted)
    worst = wrong[np.argsort(-found.confidence[wrong], kind="stable")][:_MAX_ROWS]
    rows = [
        [
            str(index), found.names[found.labels[index]], found.names[found.predicted[index]],
            f"{found.confidence[index]:.2%}",
        ]
        for index in map(int, worst)
    ]  # fmt: skip
    if not rows:
        return None
    header = ["example", "true", "predicted", "sure"]
    body = table(header, rows, caption="Worst mistakes", class_="numbers")
    return tag("div", tag("h3", "Worst mistakes"), body)
