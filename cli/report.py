"""What a run shows and writes: banner, summary, predictions, pictures."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from gradloop.data.epoch_dataset import EpochDataset
from gradloop.engine import devices
from gradloop.engine.history import History
from gradloop.engine.memory import format_growth
from gradloop.engine.parity.comparison import Comparison
from gradloop.engine.state import TrainState
from gradloop.engine.storage.extras import MissingExtra
from gradloop.engine.storage.writers import (
    RECORD_KEYS,
    Record,
    epoch_records,
    read_csv,
)
from gradloop.engine.strategy import describe_strategy
from gradloop.engine.timing import format_line
from gradloop.files import DirectoryError
from gradloop.machine import peak_memory_bytes

from . import plots
from .config import JobConfig
from .log import Log
from .run_folder import RunFolder


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


def summarize(
    state: TrainState, facts: dict[str, Any], history: dict[str, list[Any]]
) -> dict[str, Any]:
    """Returns the content of summary.json: at least these keys, whatever the run did.

    Args:
      state: After the run.
      facts: What the run found, such as `exit_reason`; they win over the values here.
      history: Metric name to one value per epoch, of the whole run.

    Returns:
      JSON-ready values; None where there is none. `images_per_sec` is that of training, tracing
      included and validation excluded.
    """
    return {
        "status": None,
        "exit_reason": None,
        "test_accuracy": None,
        "history": history,
        "images_per_sec": None,
        "num_steps": state.progress.num_steps_completed,
        "num_traces": sum(f.num_traces for f in state.functions.values()),
        "traces": [t.to_dict() for f in state.functions.values() for t in f.traces],
        "timing": None,
        "memory": None,
        "peak_memory_bytes": peak_memory_bytes(),
        "device_peak_memory_bytes": device_peak_memory_bytes(),
        # Several workers compute it together, and after an error they no longer are.
        # Several workers compute it together: one that has failed is not with them any more.
        "weights_sha256": state.weights_sha256() if "weights_sha256" not in facts else None,
    } | facts


def describe_training(history: History, num_steps: int, dataset: EpochDataset) -> dict[str, Any]:
    """Returns the part of a summary that describes a training.

    Args:
      history: What `fit` returned.
      num_steps: Steps of the run, including those before it was resumed.
      dataset: The training data.
    """

    def count_examples(num_steps: int) -> int:
        num_passes, rest = divmod(num_steps, dataset.num_batches)
        return num_passes * dataset.num_examples + rest * dataset.global_batch_size

    num_trained = count_examples(num_steps) - count_examples(num_steps - history.num_steps)
    return {
        "num_epochs": len(history.epoch),
        "train_secs": history.train_secs,
        "timing": history.timing,
        "memory": history.memory,
        "images_per_sec": num_trained / history.train_secs if history.train_secs else None,
    }


def describe_comparison(comparison: Comparison) -> dict[str, Any]:
    """Returns the part of a summary that describes a comparison."""
    return dataclasses.asdict(comparison) | {
        "history": comparison.engine_history,
        "is_equal": comparison.is_equal,
        "has_moved": comparison.has_moved,
    }


def history_of(epochs: Sequence[Record]) -> dict[str, list[Any]]:
    """Returns the history as Keras's: metric name to its values, from the epochs that have one."""
    names = sorted({name for record in epochs for name in record} - set(RECORD_KEYS))
    return {name: [r[name] for r in epochs if name in r] for name in names}


def format_summary(summary: dict[str, Any], epochs: Sequence[Record]) -> str:
    """Returns the lines that close a run's output."""
    speed = summary["images_per_sec"]
    lines = {
        "ended": summary["exit_reason"],
        "steps": f"{summary['num_steps']:,} in all"
        + (f", {summary['train_secs']:.1f} s of training" if "train_secs" in summary else "")
        + (f", {speed:,.0f} images/s" if speed else ""),
        "time": format_line(summary["timing"]) if summary["timing"] else "",
        "best": format_best(epochs),
        "traces": str(summary["num_traces"]),
        "memory": f"{summary['peak_memory_bytes'] / 2**20:,.0f} MiB at the peak"
        + format_growth(summary["memory"] or {}),
        "weights": f"sha256 {(summary['weights_sha256'] or 'unknown')[:16]}",
    }
    return "\n".join(f"  {name:<10} {text}" for name, text in lines.items() if text)


def format_best(epochs: Sequence[Record]) -> str:
    """Returns the best epoch by validation accuracy; without one, by validation loss or loss."""
    for name, sign in (("val_accuracy", 1), ("val_loss", -1), ("loss", -1)):
        # max() may return a NaN.
        found = [r for r in epochs if name in r and not np.isnan(r[name])]
        if found:
            best = max(found, key=lambda record: sign * record[name])
            return f"{name} {best[name]:.4f} in epoch {best['epoch'] + 1}"
    return ""


def device_peak_memory_bytes() -> dict[str, int]:
    """Returns the largest memory in use on each GPU so far; empty without one."""
    return {
        gpu.name: tf.config.experimental.get_memory_info(gpu.name.removeprefix("/device:"))["peak"]
        for gpu in devices.logical("GPU")
    }


def draw_history(folder: RunFolder, log: Log) -> None:
    """Draws the curves of the epochs in the folder's metrics.csv, if there is one."""
    if not folder.writes or not folder.draws:
        return
    records = _read_records(folder, log)
    if epoch_records(records):
        _draw(log, plots.plot_history, records, folder.plots / "history.png")


def finish(folder: RunFolder, log: Log, state: TrainState, facts: dict[str, Any]) -> bool:
    """Writes history.json and, last, summary.json, and shows the last lines of a run.

    Args:
      folder: The run's. Epochs are read from its metrics.csv, so those before a resumption count.
      log: Where lines go.
      state: See `summarize`.
      facts: See `summarize`.

    Returns:
      Whether the files could be written. If not, a line on stderr says why.
    """
    epochs = epoch_records(_read_records(folder, log))
    summary = summarize(state, facts, history_of(epochs))
    is_written = True
    if epochs and not folder.suffix:
        is_written = log.attempt(folder.write_history, summary["history"])
    is_written &= log.attempt(folder.write_summary, summary)
    log.line(format_summary(summary, epochs))
    if summary["test_accuracy"] is not None:
        log.result(f"Test set prediction accuracy: {100 * summary['test_accuracy']:.2f}%")
    log.result(f"Everything is in {folder.path}")
    return is_written


def _read_records(folder: RunFolder, log: Log) -> list[Record]:
    records: list[Record] = []
    if folder.writes and folder.metrics_csv.exists():
        log.attempt(lambda: records.extend(read_csv(folder.metrics_csv)))
    return records


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
    with (folder.path / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "predicted", *(f"p{index}" for index in range(num_classes))])
        for label, guess, row in zip(labels, predicted, probabilities.tolist(), strict=True):
            writer.writerow([label, guess, *row])
    np.savez_compressed(
        folder.path / "predictions.npz",
        labels=labels,
        predicted=predicted,
        probabilities=probabilities,
    )
    if not folder.draws:
        return float((predicted == labels).mean())
    confusion, mistakes = folder.plots / "confusion_matrix.png", folder.plots / "worst_mistakes.png"
    _draw(log, plots.plot_confusion_matrix, labels, predicted, num_classes, confusion)
    _draw(log, plots.plot_worst_mistakes, images, labels, probabilities, mistakes)
    return float((predicted == labels).mean())


def _draw(log: Log, plot: Callable[..., Path], *args: Any) -> None:
    try:
        log.attempt(plot, *args)
    except (MissingExtra, DirectoryError) as error:
        log.line(f"no picture: {error}")
