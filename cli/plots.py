"""Pictures of a run. They need matplotlib (the extra `plots`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gradloop.engine.storage.figures import new_figure, save_figure
from gradloop.engine.storage.writers import RECORD_KEYS, Record, epoch_records

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TRAIN_COLOR = "#1f6f8b"
_VALIDATION_COLOR = "#e07a1f"
_MAX_PANELS = 4
_MAX_LABELLED_CLASSES = 30


def plot_history(records: Sequence[Record], path: str | os.PathLike[str]) -> Path:
    """Draws one panel per metric, the loss first, with training and validation curves.

    A run of one epoch is drawn over its steps, if they are recorded: one point makes no curve.

    Args:
      records: As in `MemoryWriter.records` or from `engine.storage.writers.read_csv`.
      path: The picture's; its extension names the format.

    Returns:
      The picture's path.

    Raises:
      MissingExtra: If matplotlib is not installed.
      ValueError: If no epoch is recorded, or the directory cannot be written.
    """
    epochs = epoch_records(records)
    names = list(dict.fromkeys(name for record in epochs for name in record if _is_curve(name)))
    names = [name for name in names if all(np.ndim(r.get(name, 0)) == 0 for r in epochs)]
    if not names:
        raise ValueError(
            "there is no epoch in the records: train for one epoch or more before plotting."
        )
    # Stable sort: the loss, then the order of the logs.
    names = sorted(names, key=lambda name: name != "loss")[:_MAX_PANELS]
    # A resumed run may repeat a step: the later record counts.
    steps = sorted({r["step"]: r for r in records if r["kind"] == "execution"}.items())
    figure = new_figure(5.0 * len(names), 3.6)
    for index, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), index + 1)
        if len(epochs) == 1 and steps:
            _draw_steps(axes, name, [record for _, record in steps], epochs[0])
        else:
            _draw_epochs(axes, name, epochs)
        axes.set_title(name.replace("_", " "), loc="left", fontweight="bold")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return save_figure(figure, path)


def _is_curve(name: str) -> bool:
    return name not in RECORD_KEYS and not name.startswith("val_")


def _draw_epochs(axes: Axes, name: str, epochs: Sequence[Record]) -> None:
    from matplotlib.ticker import MaxNLocator

    for key, style, color, label in (
        (name, "o-", _TRAIN_COLOR, "training"),
        (f"val_{name}", "s-", _VALIDATION_COLOR, "validation"),
    ):
        points = [(record["epoch"] + 1, record[key]) for record in epochs if key in record]
        if points:
            axes.plot(*zip(*points, strict=True), style, ms=4, color=color, label=label)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_steps(axes: Axes, name: str, steps: Sequence[Record], epoch: Record) -> None:
    end, value = epoch["step"], epoch[name]
    points = [*((r["step"], r[name]) for r in steps if name in r), (end, value)]
    axes.plot(*zip(*points, strict=True), color=_TRAIN_COLOR, label="training, so far in the epoch")
    axes.plot([end], [value], "o", ms=5, color=_TRAIN_COLOR)
    if f"val_{name}" in epoch:
        value = epoch[f"val_{name}"]
        label = f"validation: {value:.4g}"
        axes.plot([end], [value], "s", ms=6, color=_VALIDATION_COLOR, label=label)
    axes.set_xlabel("step")


def plot_confusion_matrix(
    labels: np.ndarray, predictions: np.ndarray, num_classes: int, path: str | os.PathLike[str]
) -> Path:
    """Draws how often the model predicted each class for each true class.

    Args:
      labels: Class indices, shape `[n]`.
      predictions: Class indices, shape `[n]`.
      num_classes: Indices lie below it.
      path: The picture's.

    Returns:
      The picture's path.

    Raises:
      MissingExtra: If matplotlib is not installed.
      ValueError: If the arrays differ in length or hold an index out of range.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    _check_classes("labels", labels, num_classes)
    _check_classes("predictions", predictions, num_classes)
    _check_same_length(labels=labels, predictions=predictions)
    flat = labels.astype(np.int64) * num_classes + predictions.astype(np.int64)
    counts = np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = max(4.0, 0.55 * min(num_classes, _MAX_LABELLED_CLASSES) + 1.5)
    figure = new_figure(size, size)
    axes = figure.add_subplot()
    # The square root makes rare mistakes visible beside a full diagonal.
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    if num_classes <= _MAX_LABELLED_CLASSES:
        _label_cells(axes, counts, shares)
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(f"{counts.sum():,} examples, {accuracy:.2%} right", loc="left")
    return save_figure(figure, path)


def _label_cells(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    classes = range(len(counts))
    axes.set_xticks(classes)
    axes.set_yticks(classes)
    for row, column in zip(*np.nonzero(counts), strict=True):
        color = "white" if shares[row, column] > 0.3 else "black"
        text = str(counts[row, column])
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)


def plot_worst_mistakes(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    path: str | os.PathLike[str],
    *,
    num_images: int = 25,
) -> Path:
    """Draws the images that the model got wrong with the most confidence.

    Args:
      images: Shape `[n, height, width]` or `[n, height, width, channels]`, 1 or 3 channels.
      labels: Class indices, shape `[n]`.
      probabilities: Shape `[n, num_classes]`.
      path: The picture's.
      num_images: Largest number of images.

    Returns:
      The picture's path.

    Raises:
      MissingExtra: If matplotlib is not installed.
      ValueError: If the shapes do not fit together.
    """
    images, labels, probabilities = map(np.asarray, (images, labels, probabilities))
    if images.ndim not in (3, 4) or probabilities.ndim != 2:
        raise ValueError(
            "images must have shape [n, height, width] or [n, height, width, channels] and "
            f"probabilities [n, num_classes], not {images.shape} and {probabilities.shape}."
        )
    _check_same_length(images=images, labels=labels, probabilities=probabilities)
    _check_classes("labels", labels, probabilities.shape[1])
    predictions, confidences = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predictions != labels)
    worst = wrong[np.argsort(-confidences[wrong], kind="stable")][:num_images]
    num_columns = max(1, int(np.ceil(np.sqrt(max(len(worst), 4)))))
    num_rows = max(1, -(-len(worst) // num_columns))
    figure = new_figure(1.5 * num_columns + 0.5, 1.8 * num_rows + 0.6)
    for position, index in enumerate(worst):
        axes = figure.add_subplot(num_rows, num_columns, position + 1)
        image = images[index].squeeze(-1) if images.shape[-1] == 1 else images[index]
        axes.imshow(image, cmap="gray" if image.ndim == 2 else None)
        sure = f"{confidences[index]:.1%}"
        axes.set_title(f"{predictions[index]}, {sure}\ntruly {labels[index]}", fontsize=8)
        axes.set_axis_off()
    noun = "mistake" if len(wrong) == 1 else "mistakes"
    figure.suptitle(f"{len(wrong):,} {noun} in {len(labels):,} images")
    return save_figure(figure, path)


def _check_same_length(**arrays: np.ndarray) -> None:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"arrays differ in length: {lengths}.")


def _check_classes(name: str, classes: np.ndarray, num_classes: int) -> None:
    if classes.ndim != 1 or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(
            f"{name} must be class indices of shape [n], not {classes.dtype} {classes.shape}."
        )
    if len(classes) and (classes.min() < 0 or classes.max() >= num_classes):
        raise ValueError(
            f"{name} must lie in 0..{num_classes - 1}, not {classes.min()}..{classes.max()}."
        )
