"""Pictures of predicted classes: what is taken for what, and the worst mistakes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gradloop.engine.storage import figures

from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_LABELLED_CLASSES = 30
_MAX_TICKS = 40
_NUM_CONFUSIONS = 15
_CELL_INCHES = 0.6
_MAX_NAME = 22


def plot_confusion_matrix(
    labels: np.ndarray,
    predictions: np.ndarray,
    num_classes: int,
    path: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Draws how often the model predicted each class for each true class.

    Up to 30 classes each cell has its count and its share of the true class. Beyond, a list beside
    the matrix has the most frequent confusions.

    Args:
      labels: Class indices, shape `[n]`.
      predictions: Class indices, shape `[n]`.
      num_classes: Indices lie below it.
      path: The picture's.
      class_names: Of the classes; by default, their indices.

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
    names = _names(class_names, num_classes)
    flat = labels.astype(np.int64) * num_classes + predictions.astype(np.int64)
    counts = np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)
    is_labelled = num_classes <= _MAX_LABELLED_CLASSES
    size = max(4.2, _CELL_INCHES * min(num_classes, _MAX_LABELLED_CLASSES - 12 * (not is_labelled)))
    figure = figures.new_figure(size + 2.2 + 3.2 * (not is_labelled), size + 1.4)
    figure.set_layout_engine("compressed")  # for axes of a fixed shape
    axes, *others = figure.subplots(
        1, 1 if is_labelled else 2, squeeze=False,
        width_ratios=None if is_labelled else [size, 3.2],
    )[0]  # fmt: skip
    _draw_matrix(axes, counts, names, is_labelled=is_labelled)
    for beside in others:
        _list_confusions(beside, counts, names)
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    axes.set_xlabel("predicted class", fontsize=11)
    axes.set_ylabel("true class", fontsize=11)
    axes.set_title(f"{counts.sum():,} examples, {accuracy:.2%} right", loc="left")
    return figures.save_figure(figure, path)


def _names(class_names: Sequence[str] | None, num_classes: int) -> list[str]:
    names = range(num_classes) if class_names is None else class_names
    return [style.plain(style.shorten(str(name), _MAX_NAME)) for name in names]


def _draw_matrix(
    axes: Axes, counts: np.ndarray, names: Sequence[str], *, is_labelled: bool
) -> None:
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import PercentFormatter

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # The square root makes rare mistakes visible beside a full diagonal.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    bar = axes.figure.colorbar(
        image, ax=axes, label="share of the true class", fraction=0.046, pad=0.02, shrink=0.7,
        ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 1], format=PercentFormatter(1, decimals=0),
    )  # fmt: skip
    bar.outline.set_visible(False)
    every = -(-len(names) // _MAX_TICKS)
    ticks = range(0, len(names), every)
    is_long = max(map(len, names), default=0) > 4
    shown = [names[index] for index in ticks]
    axes.set_xticks(ticks, shown, rotation=90 if is_long else 0)
    axes.set_yticks(ticks, shown)
    axes.tick_params(labelsize=9 if every == 1 else 8)
    if is_labelled:
        _label_cells(axes, counts, shares)


def _label_cells(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    size = 11 if len(counts) <= 5 else 8.5 if len(counts) <= 12 else 7.5
    for row, column in zip(*np.nonzero(counts), strict=True):
        color = "white" if shares[row, column] > 0.3 else "black"
        text = f"{counts[row, column]}\n{_percent(shares[row, column])}"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=size)


def _percent(share: float) -> str:
    """Returns a share in a few characters."""
    return f"{share:.0%}" if share >= 0.995 else f"{share:.1%}"


def _list_confusions(axes: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    axes.set_axis_off()
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_NUM_CONFUSIONS]
    lines = [
        f"{wrong.flat[index]:>6,}  {names[index // len(counts)]} as {names[index % len(counts)]}"
        for index in order
        if wrong.flat[index]
    ]
    text = "\n".join(["most frequent confusions", *lines])
    axes.text(0, 1, text, va="top", fontsize=9, linespacing=1.6, transform=axes.transAxes)


def is_of_images(x: np.ndarray) -> bool:
    """Returns whether an array can be shown as images: gray, or of 1, 3 or 4 channels.

    Example:
      >>> import numpy as np
      >>> is_of_images(np.zeros((2, 28, 28))), is_of_images(np.zeros((2, 784)))
      (True, False)
    """
    return x.ndim == 3 or (x.ndim == 4 and x.shape[-1] in (1, 3, 4))


def plot_worst_mistakes(
    take_images: Callable[[np.ndarray], np.ndarray],
    labels: np.ndarray,
    probabilities: np.ndarray,
    path: str | os.PathLike[str],
    *,
    num_images: int = 25,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Draws the images that the model got wrong with the most confidence.

    Above each are the predicted and the true class, the confidence, and the index of the example.

    Args:
      take_images: Maps indices, shape `[m]`, to images, shape `[m, height, width]` or
        `[m, height, width, channels]`, 1, 3 or 4 channels. It is asked for what is drawn.
      labels: Class indices, shape `[n]`.
      probabilities: Shape `[n, num_classes]`.
      path: The picture's.
      num_images: Largest number of images.
      class_names: Of the classes; by default, their indices.

    Returns:
      The picture's path.

    Raises:
      MissingExtra: If matplotlib is not installed.
      ValueError: If the shapes do not fit together.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if probabilities.ndim != 2:
        raise ValueError(f"probabilities must be [n, num_classes], not {probabilities.shape}.")
    _check_same_length(labels=labels, probabilities=probabilities)
    _check_classes("labels", labels, probabilities.shape[1])
    confidences = probabilities.max(axis=1)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    worst = wrong[np.argsort(-confidences[wrong], kind="stable")][:num_images]
    names = _names(class_names, probabilities.shape[1])
    titles = [
        f"{_predicted_and_true(names[probabilities[index].argmax()], names[labels[index]])}\n"
        f"{confidences[index]:.1%}, #{index}"
        for index in worst
    ]
    figure = _draw_images(_checked(take_images(worst)) if len(worst) else (), titles)
    noun = "mistake" if len(wrong) == 1 else "mistakes"
    shown = f", the {len(worst)} surest" if len(worst) < len(wrong) else ""
    keys = "\npredicted / true, confidence, #example" if len(worst) else ""
    figure.suptitle(f"{len(wrong):,} {noun} in {len(labels):,} images{shown}{keys}", fontsize=11)
    return figures.save_figure(figure, path)


def _draw_images(images: Sequence[np.ndarray] | np.ndarray, titles: Sequence[str]) -> Figure:
    num_columns = max(1, int(np.ceil(np.sqrt(max(len(titles), 4)))))
    num_rows = max(1, -(-len(titles) // num_columns))
    height = 2.15 * num_rows + 0.7 if titles else 0.7
    figure = figures.new_figure(1.75 * num_columns + 0.5, height)
    for position, (image, title) in enumerate(zip(images, titles, strict=True)):
        axes = figure.add_subplot(num_rows, num_columns, position + 1)
        _show_image(axes, image)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    return figure


def _checked(images: np.ndarray) -> np.ndarray:
    if not is_of_images(images):
        raise ValueError(
            "images must have shape [n, height, width] or [n, height, width, channels], not "
            f"{images.shape}."
        )
    return images


def _show_image(axes: Axes, image: np.ndarray) -> None:
    image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    if image.ndim == 3 and image.dtype != np.uint8:  # Colours are whole bytes, or 0 to 1.
        low, high = float(image.min()), float(image.max())
        if low < 0 or high > 1:
            image = (image - low) / ((high - low) or 1.0)
    axes.imshow(image, cmap="gray" if image.ndim == 2 else None)


def _predicted_and_true(predicted: str, true: str) -> str:
    return f"{predicted} / {true}" if len(predicted) + len(true) < 18 else f"{predicted} /\n{true}"


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
