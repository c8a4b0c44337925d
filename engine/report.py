"""What a run of train.py shows and leaves behind: banner, hooks, summary, predictions, pictures."""

from __future__ import annotations

import csv
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from engine import plots
from engine.config import TrainConfig
from engine.hooks import (
    Hook,
    ProgressBar,
    SaveCheckpoint,
    StopOnNaN,
    StopOnSignal,
    WriteMetrics,
)
from engine.loop import History
from engine.run import Log, RunFolder
from engine.state import TrainState
from engine.strategy import describe_strategy
from engine.writers import (
    CSVWriter,
    JSONLinesWriter,
    MissingExtra,
    MultiWriter,
    TensorBoardWriter,
    Writer,
    read_csv,
)


def format_banner(config: TrainConfig, state: TrainState, **facts: str) -> str:
    """Returns the lines that a run begins with.

    Args:
      config: Of the run.
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
        "xla": str(config.jit_compile).lower(),
        **facts,
    }
    return "\n".join(f"  {name:<10} {text}" for name, text in lines.items())


def summarize(
    state: TrainState, history: History, test_logs: dict[str, Any], *, num_examples: int
) -> dict[str, Any]:
    """Returns what summary.json holds.

    Args:
      state: After the training.
      history: What `fit` returned.
      test_logs: What `evaluate` returned for the final weights; empty if that was left out.
      num_examples: In one whole epoch; a shorter one is counted by its steps.

    Returns:
      JSON-ready values; `images_per_sec` is over the training of all epochs, the tracing of the
      graph included, validation excluded.
    """
    train_secs = sum(history.epoch_secs)
    return {
        "exit_reason": history.stop_reason or "completed",
        "test_accuracy": test_logs.get("accuracy"),
        "test_logs": test_logs,
        "num_epochs": len(history.epoch),
        "num_steps": state.progress.num_steps_completed,
        "train_secs": train_secs,
        "images_per_sec": num_examples / train_secs if train_secs else None,
        "num_traces": history.num_traces,
        "peak_memory_bytes": peak_memory_bytes(),
        "device_peak_memory_bytes": device_peak_memory_bytes(),
        "weights_sha256": state.weights_sha256(),
        "history": history.history,
        "epoch_secs": history.epoch_secs,
    }


def format_summary(summary: dict[str, Any]) -> str:
    """Returns the lines that a run ends with."""
    speed = summary["images_per_sec"]
    lines = {
        "ended": summary["exit_reason"],
        "steps": f"{summary['num_steps']:,} in {summary['train_secs']:.1f} s of training"
        + (f", {speed:,.0f} images/s" if speed else ""),
        "best": format_best(summary["history"]),
        "traces": str(summary["num_traces"]),
        "memory": f"{summary['peak_memory_bytes'] / 2**20:,.0f} MiB at the peak",
        "weights": f"sha256 {summary['weights_sha256'][:16]}",
    }
    return "\n".join(f"  {name:<10} {text}" for name, text in lines.items() if text)


def format_best(history: dict[str, list[Any]]) -> str:
    """Returns the best epoch by validation accuracy, or by loss where there is none."""
    for name, pick in (("val_accuracy", np.argmax), ("val_loss", np.argmin), ("loss", np.argmin)):
        if history.get(name):
            epoch = int(pick(history[name]))
            return f"{name} {history[name][epoch]:.4f} in epoch {epoch + 1}"
    return ""


def peak_memory_bytes() -> int:
    """Returns the largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak if sys.platform == "darwin" else peak * 1024


def device_peak_memory_bytes() -> dict[str, int]:
    """Returns the largest memory in use on each GPU so far; empty without one."""
    gpus = tf.config.list_logical_devices("GPU")
    return {
        gpu.name: tf.config.experimental.get_memory_info(gpu.name.removeprefix("/device:"))["peak"]
        for gpu in gpus
    }


def make_hooks(folder: RunFolder, log: Log) -> list[Hook]:
    """Returns what every run of train.py does beside training: watch, record, save, show."""
    writers: list[Writer] = [CSVWriter(folder.metrics_csv), JSONLinesWriter(folder.metrics_jsonl)]
    try:
        writers.append(TensorBoardWriter(folder.tensorboard))
    except MissingExtra as error:
        log.line(f"no TensorBoard files: {error}")
    return [
        StopOnSignal(),
        StopOnNaN(),
        WriteMetrics(MultiWriter(*writers)),
        SaveCheckpoint(folder.checkpoints),
        ProgressBar(line=log.line),
    ]


def finish(folder: RunFolder, log: Log, summary: dict[str, Any]) -> None:
    """Writes summary.json, history.json and the curves, and shows the last lines of a run."""
    folder.write_summary(summary)
    history = summary.get("history")
    if history:
        folder.write_history(history)
        records = read_csv(folder.metrics_csv)
        _draw(log, plots.plot_history, history, folder.plots / "history.png", records=records)
    if "train_secs" in summary:
        log.line(format_summary(summary))
    if summary.get("test_accuracy") is not None:
        log.line(f"Test set prediction accuracy: {100 * summary['test_accuracy']:.2f}%")
    log.line(f"Everything is in {folder.path}")


def write_predictions(
    folder: RunFolder, log: Log, images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray
) -> float:
    """Writes `predictions.csv` (label, predicted, a column a class), `.npz`, and two pictures.

    Args:
      folder: Where to.
      log: Takes what could not be drawn.
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
    confusion, mistakes = folder.plots / "confusion_matrix.png", folder.plots / "worst_mistakes.png"
    _draw(log, plots.plot_confusion_matrix, labels, predicted, num_classes, confusion)
    _draw(log, plots.plot_worst_mistakes, images, labels, probabilities, mistakes)
    return float((predicted == labels).mean())


def _draw(log: Log, plot: Callable[..., Path], *args: Any, **kwargs: Any) -> None:
    try:
        plot(*args, **kwargs)
    except MissingExtra as error:
        log.line(f"no picture: {error}")
