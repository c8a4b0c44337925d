"""What a run tells people: the banner, the summary, the table of predictions."""

from __future__ import annotations

import csv
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from engine.config import TrainConfig
from engine.files import make_directory
from engine.loop import History
from engine.state import TrainState
from engine.strategy import describe_strategy


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
      JSON-ready values; `images_per_sec` is over the training of all epochs, the tracing of the graph
      included, validation excluded.
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
        "weights_sha256": state.weights_sha256(),
        "history": history.history,
        "epoch_secs": history.epoch_secs,
    }


def format_summary(summary: dict[str, Any], folder: Path) -> str:
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
        "folder": str(folder),
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
    """Returns the largest resident memory of this process so far; Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_peak_memory_bytes() -> dict[str, int]:
    """Returns the largest memory in use on each GPU so far; empty without one."""
    gpus = tf.config.list_logical_devices("GPU")
    return {
        gpu.name: tf.config.experimental.get_memory_info(gpu.name.removeprefix("/device:"))["peak"]
        for gpu in gpus
    }


def write_predictions(
    directory: Path, labels: np.ndarray, probabilities: np.ndarray
) -> tuple[Path, Path]:
    """Writes `predictions.csv` (label, predicted, a column a class) and `predictions.npz`.

    Args:
      directory: Made if need be.
      labels: True classes, shape `[num_examples]`.
      probabilities: Shape `[num_examples, num_classes]`.

    Returns:
      The two files.
    """
    directory = make_directory(directory)
    predicted = probabilities.argmax(axis=1)
    table, arrays = directory / "predictions.csv", directory / "predictions.npz"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        classes = [f"p{index}" for index in range(probabilities.shape[1])]
        writer.writerow(["label", "predicted", *classes])
        rows = zip(labels.tolist(), predicted.tolist(), probabilities.tolist(), strict=True)
        writer.writerows([label, guess, *row] for label, guess, row in rows)
    np.savez_compressed(arrays, labels=labels, predicted=predicted, probabilities=probabilities)
    return table, arrays
