"""What a run predicted for the test set: which classes it takes for which, and where it errs most.

Read from predictions.npz: `labels`, `predicted`, `probabilities`, and `class_names` if there are.
"""

from __future__ import annotations

import dataclasses
import zipfile
from typing import Any

import numpy as np

from . import sections
from .markup import Markup, table, tag
from .run_files import RunFiles

MAX_CELLS = 30
_MAX_ROWS = 12
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
    found = read(run)
    numbers = sections.pictures(run, [_NUMBERS])
    if found is None:
        return sections.section("Predictions", *numbers) if numbers else _how_to(run)
    counts = found.counts
    right = np.trace(counts) / max(counts.sum(), 1)
    matrix: list[Markup]
    if len(counts) <= MAX_CELLS:
        matrix = [_matrix(found, counts)]
    else:
        matrix = sections.pictures(run, [_confusion_picture(len(counts))])
    title = tag("h3", "Confusion matrix")
    note = tag("p", f"{counts.sum():,} examples, {right:.2%} right. Rows are the truth.")
    tables = [tag("div", title, note, *matrix), _confusions(found, counts), _mistakes(found)]
    pictures = sections.pictures(run, [_MISTAKES])
    return sections.section("Predictions", tag("div", *tables, class_="side"), *pictures)


def read(run: RunFiles) -> Classified | None:
    """Returns the classes in predictions.npz; None if it is missing, damaged, or has none."""
    try:
        with np.load(run.path / "predictions.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return _classified(arrays)
    except (OSError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile, EOFError):
        return None


def _classified(arrays: dict[str, Any]) -> Classified | None:
    labels, predicted = arrays["labels"], arrays["predicted"]
    is_of_classes = all(
        np.issubdtype(a.dtype, np.integer) and a.ndim == 1 for a in (labels, predicted)
    )
    if not is_of_classes or len(labels) != len(predicted) or not len(labels):
        return None
    probabilities = arrays.get("probabilities")
    size = int(max(labels.max(), predicted.max())) + 1
    confidence = None
    if probabilities is not None and probabilities.ndim == 2:
        size = max(size, probabilities.shape[1])
        confidence = probabilities.max(axis=1)
    names = [str(name) for name in arrays.get("class_names", ())]
    if len(names) < size:
        names = [str(index) for index in range(size)]
    return Classified(labels, predicted, confidence, names)


def _how_to(run: RunFiles) -> Markup | None:
    if not (run.path / "checkpoints").is_dir():
        return None
    command = f"python train.py --mode predict --run_dir {run.path} --resume"
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
