"""The best epoch of a run, by the metric that its settings name. Without Keras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..metric_directions import direction_of, directions_of
from ..settings.sweeping import METRIC_SETTINGS
from .run_files import Record, RunFiles, number

# Keras's names of the share of examples that are predicted right.
ACCURACIES = (
    "accuracy", "acc", "sparse_categorical_accuracy", "categorical_accuracy", "binary_accuracy",
)  # fmt: skip
# By which an epoch is the best where nobody names a metric: the first of which there are values.
METRICS = (*(f"val_{name}" for name in ACCURACIES), "val_loss", "loss")


class Best(NamedTuple):
    """The best epoch of a run: a metric, its value, and the epoch, counted from 1."""

    metric: str
    value: float
    epoch: int


def best_of(run: RunFiles, metric: str | None = None, direction: str | None = None) -> Best | None:
    """Returns the best epoch of a run, whatever its state.

    Args:
      run: Its files.
      metric: By which; None: the one that the run kept its best by, or the first of `METRICS`.
      direction: "min" or "max"; None: as the metric's name says.
    """
    named = metrics_of(run, metric, direction)
    found = (find_best(run.epochs, name, word) for name, word in named.items())
    return next((one for one in found if one is not None), None)


def metrics_of(
    run: RunFiles, metric: str | None = None, direction: str | None = None
) -> dict[str, str | None]:
    """Returns the metrics by which an epoch may be the best, in their order.

    Each with the direction that a person says of it; None: nothing. Arguments as of `best_of`.
    """
    if metric is not None:
        return {metric: direction}
    named = [str(run.config[name]) for name in METRIC_SETTINGS if run.config.get(name)]
    others = dict.fromkeys(name for name in METRICS if name not in named)
    return directions_of(named, direction or run.config.get("direction")) | others


def find_best(epochs: Sequence[Record], metric: str, direction: str | None) -> Best | None:
    """Returns the best epoch by a metric; None if there is none, or its name tells no direction."""
    word = direction_of(metric, direction)
    values = [(number(record.get(metric)), record["epoch"] + 1) for record in epochs]
    known = [(value, epoch) for value, epoch in values if value is not None]
    if not known or word is None:
        return None
    sign = 1 if word == "max" else -1
    value, epoch = max(known, key=lambda one: sign * one[0])
    return Best(metric, value, epoch)
