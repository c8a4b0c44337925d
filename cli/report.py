"""What a run shows and writes: banner, predictions, pictures."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gradloop.engine.state import TrainState
from gradloop.engine.storage.extras import MissingExtra
from gradloop.engine.storage.writers import epoch_records
from gradloop.engine.strategy import describe_strategy
from gradloop.files import naming

from . import plots
from .config import JobConfig
from .log import Log
from .run_folder import RunFolder
from .summary import read_records


def format_banner(config: JobConfig, state: TrainState, **facts: str) -> str:
    """Returns the lines that open a run's output.

    Args:
      config: The run's.
      state: Built.
      **facts: More lines, name to text.
    """
    num_replicas = state.strategy.num_replicas_in_sync
    lines = {
        "model": f"{config.model}, {state.model.count_params():,} parameters",
        "devices": describe_strategy(state.strategy),
        "batch": f"{config.global_batch_size} global, "
        f"{config.global_batch_size / num_replicas:g} per replica",
        "precision": config.precision,
        "xla": "auto" if config.jit_compile is None else _xla(config),
        **facts,
    }
    return "\n".join(f"  {name:<10} {text}" for name, text in lines.items())


def _xla(config: JobConfig) -> str:
    return f"the {config.jit_scope}" if config.jit_compile else "off"


def draw_history(folder: RunFolder, log: Log) -> None:
    """Draws the curves of the epochs in the folder's metrics.csv, if there is one."""
    if not folder.writes or not folder.draws:
        return
    records = read_records(folder, log)
    if epoch_records(records):
        _draw(log, plots.plot_history, records, folder.plots / "history.png")


def write_predictions(
    folder: RunFolder, log: Log, images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray
) -> float:
    """Writes predictions.csv (label, predicted, one column per class), .npz, and two pictures.

    Args:
      folder: Where files go.
      log: Where lines go.
      images: Shape `[num_examples, ...]`.
      labels: True classes, shape `[num_examples]`.
      probabilities: Shape `[num_examples, num_classes]`.

    Returns:
      The accuracy.
    """
    predicted, num_classes = probabilities.argmax(axis=1), probabilities.shape[1]
    path = folder.path / "predictions.csv"
    with naming(path), path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "predicted", *(f"p{index}" for index in range(num_classes))])
        for label, guess, row in zip(labels, predicted, probabilities.tolist(), strict=True):
            writer.writerow([label, guess, *row])
    arrays = {"labels": labels, "predicted": predicted, "probabilities": probabilities}
    with naming(folder.path / "predictions.npz"):
        np.savez_compressed(folder.path / "predictions.npz", **arrays)
    if not folder.draws:
        return float((predicted == labels).mean())
    confusion, mistakes = folder.plots / "confusion_matrix.png", folder.plots / "worst_mistakes.png"
    _draw(log, plots.plot_confusion_matrix, labels, predicted, num_classes, confusion)
    _draw(log, plots.plot_worst_mistakes, images, labels, probabilities, mistakes)
    return float((predicted == labels).mean())


def _draw(log: Log, plot: Callable[..., Path], *args: Any) -> None:
    try:
        log.attempt(plot, *args)
    except MissingExtra as error:
        log.line(f"no picture: {error}")
