"""summary.json and the last lines of a run: how it ended, its best epoch, speed and results."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradloop.data.epoch_dataset import EpochDataset
from gradloop.engine import devices
from gradloop.engine.history import History
from gradloop.engine.hooks.bar_text import format_logs
from gradloop.engine.hooks.monitored import find_direction
from gradloop.engine.memory import format_growth
from gradloop.engine.parity.comparison import Comparison
from gradloop.engine.state import TrainState
from gradloop.engine.storage.writers import RECORD_KEYS, Record, epoch_records
from gradloop.engine.timing import COMPUTE, DATA, DISPATCH, format_line
from gradloop.machine import peak_memory_bytes

from .config import JobConfig
from .log import Log
from .pages.best import ACCURACIES, METRICS
from .resuming import command_to_go_on
from .run_directory import has_checkpoints
from .run_folder import RunFolder


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
      included and validation excluded; `steady_images_per_sec` leaves tracing and hooks out, too.
    """
    rate = state.learning_rate()
    return {
        "status": None,
        "exit_reason": None,
        "model": None,
        "dataset": None,
        "started_at": None,
        "ended_at": None,
        "test_accuracy": None,
        "best": None,
        "history": history,
        "images_per_sec": None,
        "steady_images_per_sec": None,
        "learning_rate": None if rate is None else float(rate),
        "num_steps": state.progress.num_steps_completed,
        "num_traces": sum(f.num_traces for f in state.functions.values()),
        "traces": [t.to_dict() for f in state.functions.values() for t in f.traces],
        "timing": None,
        # What became of the optimizer's update; None where nothing was to be decided.
        "update": state.compiled_updates.outcome or None,
        "memory": None,
        "peak_memory_bytes": peak_memory_bytes(),
        "device_peak_memory_bytes": device_peak_memory_bytes(),
        # Several workers compute it together: one that has failed is not with them any more.
        "weights_sha256": state.weights_sha256() if "weights_sha256" not in facts else None,
    } | facts


def identify(config: JobConfig, started_at: float | None) -> dict[str, Any]:
    """Returns the part of a summary that says which run it is, and when it was.

    Args:
      config: The run's.
      started_at: The `time.monotonic()` when the process began; None: unknown.
    """
    now = datetime.datetime.now().astimezone()
    began = None
    if started_at is not None:
        began = now - datetime.timedelta(seconds=time.monotonic() - started_at)
    return {
        **{name: getattr(config, name) for name in ("model", "dataset", "run_name", "tags")},
        "started_at": began and began.isoformat(timespec="seconds"),
        "ended_at": now.isoformat(timespec="seconds"),
    }


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
    steady_secs = _steady_secs(history.timing)
    return {
        "num_epochs": len(history.epoch),
        "train_secs": history.train_secs,
        "timing": history.timing,
        "memory": history.memory,
        "images_per_sec": num_trained / history.train_secs if history.train_secs else None,
        "steady_images_per_sec": num_trained / steady_secs if steady_secs else None,
    }


def _steady_secs(timing: Mapping[str, Any]) -> float | None:
    """Returns the seconds of the steps without tracing; None if each execution traced."""
    if not timing or timing["step_secs"] is None:
        return None
    parts = timing["parts"]
    return float(sum(parts[name]["secs"] for name in (COMPUTE, DATA, DISPATCH) if name in parts))


def accuracy_of(logs: Mapping[str, float]) -> float | None:
    """Returns the accuracy in the logs of an evaluation; None if they have none."""
    return next((logs[name] for name in ACCURACIES if name in logs), None)


def describe_test(
    logs: Mapping[str, float], dataset: EpochDataset, num_steps: int | None
) -> dict[str, Any]:
    """Returns the part of a summary that an evaluation of the test set has found.

    Args:
      logs: What `evaluate` returned.
      dataset: The test set.
      num_steps: How many of its batches were evaluated; None: all.

    Returns:
      `test_accuracy` only if all of the test set was evaluated, and there is an accuracy.
    """
    is_whole = num_steps is None or num_steps >= dataset.num_batches
    return {
        "test_accuracy": accuracy_of(logs) if is_whole else None,
        "test_logs": dict(logs),
        "test_examples": dataset.num_examples
        if is_whole
        else (num_steps or 0) * dataset.global_batch_size,
        "test_set_examples": dataset.num_examples,
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


def find_best(
    epochs: Sequence[Record],
    state: TrainState,
    metric: str | None = None,
    direction: str | None = None,
) -> dict[str, Any] | None:
    """Returns the best epoch: `epoch` (from 0, as in metrics.csv), `metric` and its `value`.

    Args:
      epochs: Records of epochs.
      state: Knows whether more of a metric is better.
      metric: By which; None: by the validation accuracy; without one, the validation loss or loss.
      direction: "min" or "max" of that metric is better; None: as the state or its name says.

    Returns:
      None if no epoch has such a metric.
    """
    for name in METRICS if metric is None else (metric,):
        # max() may return a NaN.
        found = [r for r in epochs if name in r and not np.isnan(r[name])]
        if found:
            sign = 1 if _is_better_high(name, state, direction if metric else None) else -1
            best = max(found, key=lambda record: sign * record[name])
            return {"epoch": best["epoch"], "metric": name, "value": best[name]}
    return None


def _is_better_high(name: str, state: TrainState, direction: str | None) -> bool:
    if name in METRICS and direction is None:
        return name in METRICS[: len(ACCURACIES)]
    try:
        return find_direction("best", name, direction or "auto", state) == "max"
    except ValueError:  # It cannot be told, as the training that was asked for it has said.
        return False


def format_summary(summary: dict[str, Any]) -> str:
    """Returns the lines that close a run's output."""
    speed, best = summary["steady_images_per_sec"] or summary["images_per_sec"], summary["best"]
    lines = {
        "ended": summary["exit_reason"],
        "steps": f"{summary['num_steps']:,} in all"
        + (f", {summary['train_secs']:.1f} s of training" if "train_secs" in summary else "")
        + (f", {speed:,.0f} images/s" if speed else "")
        + (" (tracing left out)" if summary["steady_images_per_sec"] else ""),
        "time": format_line(summary["timing"]) if summary["timing"] else "",
        "best": best and f"{best['metric']} {best['value']:.4f} in epoch {best['epoch'] + 1}",
        "test": _format_test(summary),
        "traces": str(summary["num_traces"]),
        "update": summary.get("update"),
        "memory": f"{summary['peak_memory_bytes'] / 2**20:,.0f} MiB at the peak"
        + format_growth(summary["memory"] or {}),
        "weights": f"sha256 {(summary['weights_sha256'] or 'unknown')[:16]}",
    }
    return "\n".join(f"  {name:<10} {text}" for name, text in lines.items() if text)


def _format_test(summary: Mapping[str, Any]) -> str:
    """Returns the loss and all metrics on the test set, and of how much of it they are."""
    if "test_logs" not in summary:
        return ""
    logs = ", ".join(format_logs(summary["test_logs"]))
    return f"{logs} on {_examples_of(summary)}"


def _examples_of(summary: Mapping[str, Any]) -> str:
    some, whole = summary["test_examples"], summary["test_set_examples"]
    of = f"all {whole:,}" if some == whole else f"the first {some:,} of {whole:,}"
    return f"{of} test examples"


def device_peak_memory_bytes() -> dict[str, int]:
    """Returns the largest memory in use on each GPU so far; empty without one."""
    return {
        gpu.name: tf.config.experimental.get_memory_info(gpu.name.removeprefix("/device:"))["peak"]
        for gpu in devices.logical("GPU")
    }


def finish(
    folder: RunFolder,
    log: Log,
    state: TrainState,
    facts: dict[str, Any],
    metric: str | None = None,
    direction: str | None = None,
) -> bool:
    """Writes history.json and, last, summary.json, and shows the last lines of a run.

    Args:
      folder: The run's. Epochs are read from its metrics.csv, so those before a resumption count.
      log: Where lines go.
      state: See `summarize`.
      facts: See `summarize`.
      metric: By which an epoch is the best; see `find_best`.
      direction: See `find_best`.

    Returns:
      Whether the files could be written. If not, a line on stderr says why.
    """
    epochs = epoch_records(folder.read_records(log))
    best = {"best": find_best(epochs, state, metric, direction)}
    summary = summarize(state, best | facts, history_of(epochs))
    is_written = True
    if epochs and not folder.suffix:
        is_written = log.attempt(folder.write_history, summary["history"])
    is_written &= log.attempt(folder.write_summary, summary)
    log.line(format_summary(summary))
    if summary["test_accuracy"] is not None:
        log.result(f"Test set prediction accuracy: {100 * summary['test_accuracy']:.2f}%")
    elif (accuracy := accuracy_of(summary.get("test_logs", {}))) is not None:
        log.result(f"Accuracy on {_examples_of(summary)}: {100 * accuracy:.2f}%")
    log.result(f"Everything is in {folder.path}")
    is_cut_short = summary["status"] in ("interrupted", "paused") and not folder.suffix
    # Each of several workers has a command of its own.
    if is_cut_short and state.peers.is_alone and has_checkpoints(folder.path):
        command = command_to_go_on(folder.path, state.progress.num_steps_completed)
        log.result(f"To go on: {command}")
    return is_written
