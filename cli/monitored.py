"""The metrics that settings name: whether there are such, before the first step."""

from __future__ import annotations

from gradloop.engine.hooks.monitored import find_direction
from gradloop.engine.options import ConfigError
from gradloop.engine.state import TrainState
from gradloop.usage import did_you_mean

from .config import JobConfig
from .metric_directions import directions_of
from .settings.sweeping import METRIC_SETTINGS


def monitored(config: JobConfig) -> tuple[str | None, str | None]:
    """Returns the metric by which an epoch is the best, and its direction, if settings say so."""
    metric = config.keep_best or config.early_stopping
    return metric, direction_for(config, metric)


def direction_for(config: JobConfig, metric: str | None) -> str | None:
    """Returns the direction of a metric that a setting names; None: as the metric says."""
    named = [getattr(config, setting) for setting in METRIC_SETTINGS]
    return directions_of(filter(None, named), config.direction).get(metric or "")


def check_metrics(config: JobConfig, state: TrainState, *, has_validation: bool) -> None:
    """Raises ConfigError if a setting names no metric, or nobody knows which values are better.

    Args:
      config: Read: the settings that name metrics, and `direction`.
      state: Built.
      has_validation: Whether `val_` metrics will come.
    """
    metrics = [*state.metrics_result()]
    legal = sorted([*metrics, *(f"val_{metric}" for metric in metrics if has_validation)])
    for setting in METRIC_SETTINGS:
        name = getattr(config, setting)
        if name is None:
            continue
        if name not in legal:
            raise ConfigError(
                f"{setting}={name!r} is not one of: {', '.join(legal)}.{did_you_mean(name, legal)}"
            )
        try:
            find_direction(setting, name, direction_for(config, name) or "auto", state)
        except ValueError as error:
            raise ConfigError(
                f"{setting}={name!r}: it is not known whether more or less of it is better. Add "
                "direction='max' or direction='min'."
            ) from error
