"""StoppingSettings: what ends a run before its last epoch."""

from __future__ import annotations

import dataclasses
from typing import Any

from gradloop.engine.options import ConfigError, option, show

from ..metric_directions import direction_of
from .sweeping import METRIC_SETTINGS

_OF_EARLY_STOPPING = ("patience", "min_delta", "restore_best")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoppingSettings:
    """What ends a run before its last epoch."""

    max_steps: int | None = option(
        None, "training", "step of the run after which it is saved and ends, if epochs do not end "
        "it before; none: epochs alone", minimum=1, modes=("train",),
    )  # fmt: skip
    early_stopping: str | None = option(
        None, "training", "metric without whose improvement the run ends, such as val_loss",
        modes=("train",),
    )  # fmt: skip
    patience: int | None = option(
        None, "training", "epochs without improvement before early_stopping ends the run",
        minimum=0, default_text="0, as in Keras", modes=("train",),
    )  # fmt: skip
    min_delta: float | None = option(
        None, "training", "smallest change that early_stopping counts as an improvement",
        minimum=0, default_text="0, as in Keras", modes=("train",),
    )  # fmt: skip
    restore_best: bool = option(
        False, "training", "end early_stopping with the weights of the best epoch",
        modes=("train",),
    )  # fmt: skip
    direction: str | None = option(
        None, "training", "which values of the metric of early_stopping, keep_best or a sweep are "
        "better; of two, of that whose name tells none; auto: as the metric says, min for a loss",
        choices=("min", "max"), none="auto", modes=("train", "sweep", "runs"),
    )  # fmt: skip


def check_stopping(config: StoppingSettings, *, names_metric: bool) -> None:
    """Raises ConfigError if a setting is given that nothing reads.

    Args:
      config: The settings.
      names_metric: Whether another setting names a metric.
    """
    given = {name: getattr(config, name) for name in _OF_EARLY_STOPPING}
    for name, value in given.items():
        if config.early_stopping is None and value is not None and value is not False:
            raise ConfigError(
                f"{name}={show(value)} is of early_stopping, which is not asked for: name its "
                "metric, as in early_stopping='val_loss', or leave it out."
            )
    if config.direction is not None and config.early_stopping is None and not names_metric:
        raise ConfigError(
            f"direction={config.direction!r} is of the metric of early_stopping, keep_best or "
            "metric, and none is named: leave it out."
        )
    _check_direction(config)


def _check_direction(config: Any) -> None:
    """Raises ConfigError if a direction is not that of two metrics whose names tell theirs."""
    named = {getattr(config, setting) for setting in METRIC_SETTINGS} - {None}
    known = {name: direction_of(name) for name in sorted(named)}
    is_used = len(known) < 2 or None in known.values()
    if config.mode != "train" or config.direction is None or is_used:
        return
    if set(known.values()) != {config.direction}:
        listed = " and ".join(f"{word} of {name}" for name, word in known.items())
        raise ConfigError(
            f"direction={config.direction!r} beside keep_best and early_stopping, whose names tell "
            f"theirs, {listed}: leave it out."
        )
