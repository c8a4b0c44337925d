"""The curves of a run: of which metrics, over what, with the best epoch."""

from __future__ import annotations

from collections.abc import Sequence

from . import charts
from .best import best_of
from .markup import Markup, fold, table, tag
from .run_files import KEYS, LEARNING_RATE, Record, RunFiles, number, part
from .words import show_number

_MAX_EPOCH_ROWS = 200


def best_epoch(run: RunFiles) -> tuple[int, str, float] | None:
    """Returns the number of the best epoch, from 1, the metric that decides, and its value."""
    said = part(run.summary, "best")
    epoch, value = number(said.get("epoch")), number(said.get("value"))
    if epoch is not None and value is not None:
        return int(epoch) + 1, str(said.get("metric")), value
    best = best_of(run)
    return None if best is None else (best.epoch, best.metric, best.value)


def make(run: RunFiles) -> list[Markup] | None:
    """Returns a chart a metric: over epochs, or over the steps of the only one."""
    epochs, steps = run.epochs, run.steps
    names = metric_names(run)
    if not names:
        return None
    figures = [chart(run, name) for name in names]
    rate = learning_rate_points(run)
    if len({value for _, value in rate}) > 1:
        one = charts.Series("learning rate", rate, "s2")
        figures.append(charts.line_chart("learning rate", [one], x_label="step"))
    note = None
    if len(epochs) == 1 and steps:
        note = tag("p", "One epoch: training is the mean since its start, over its steps.")
    parts = [tag("div", *figures, class_="charts"), note, _epoch_table(epochs)]
    return [one for one in parts if one is not None]


def metric_names(run: RunFiles) -> list[str]:
    """Returns what has a curve, the loss first, without `val_`."""
    names = dict.fromkeys(name for record in run.records for name in record)
    found = [n for n in names if n not in (*KEYS, LEARNING_RATE) and not n.startswith("val_")]
    return sorted(found, key=lambda name: name != "loss")


def chart(run: RunFiles, name: str) -> Markup:
    """Returns the curves of a metric in training and validation."""
    best = best_epoch(run)
    x_label, training, validation = metric_points(run, name)
    mark = None
    if best is not None and x_label == "epoch":
        marked = dict(validation if best[1].startswith("val_") else training)
        mark = (best[0], marked[best[0]]) if best[0] in marked else None
    series = [
        charts.Series("training", training, "s0"),
        charts.Series("validation", validation, "s1"),
    ]
    return charts.line_chart(name.replace("_", " "), series, x_label=x_label, mark=mark)


def metric_points(run: RunFiles, name: str) -> tuple[str, list[charts.Point], list[charts.Point]]:
    """Returns what a metric is drawn over, and its points in training and in validation."""
    epochs, steps, key = run.epochs, run.steps, f"val_{name}"
    if len(epochs) > 1 or not steps:
        return (
            "epoch",
            [(r["epoch"] + 1, r[name]) for r in epochs if name in r],
            [(r["epoch"] + 1, r[key]) for r in epochs if key in r],
        )
    both = [*steps, *epochs]
    return (
        "step",
        [(r["step"], r[name]) for r in both if name in r],
        [(r["step"], r[key]) for r in both if key in r],
    )


def learning_rate_points(run: RunFiles) -> list[charts.Point]:
    """Returns the learning rate at each step that is recorded."""
    records = sorted([*run.steps, *run.epochs], key=lambda record: record["step"])
    return [(r["step"], r[LEARNING_RATE]) for r in records if LEARNING_RATE in r]


def _epoch_table(epochs: Sequence[Record]) -> Markup | None:
    if not epochs:
        return None
    names = list(dict.fromkeys(name for r in epochs for name in r if name not in KEYS))
    rows = [
        [str(r["epoch"] + 1), *(show_number(r.get(name)) for name in names)]
        for r in epochs[-_MAX_EPOCH_ROWS:]
    ]
    caption = "Epochs" if len(rows) == len(epochs) else f"The last {len(rows)} epochs"
    return fold("The numbers", table(["epoch", *names], rows, caption=caption, class_="numbers"))
