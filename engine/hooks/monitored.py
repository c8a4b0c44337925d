"""What hooks monitor: a key of an epoch's logs, its value, and which direction is better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..state import TrainState

MODES = ("auto", "min", "max")


def check_mode(mode: str) -> None:
    """Raises ValueError unless `mode` is one of `MODES`."""
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}.")


def check_validated(who: str, key: str, has_validation: bool | None) -> None:
    """Raises ValueError if a `val_` key is monitored and there will be no validation.

    Args:
      who: Name of the hook.
      key: What it monitors.
      has_validation: As in `HookInfo`.
    """
    if key.startswith("val_") and has_validation is False:
        raise ValueError(
            f"{who} monitors {key!r}, but there is no validation data: pass some, or monitor "
            f"{key.removeprefix('val_')!r}."
        )


def monitored_value(who: str, key: str, logs: Mapping[str, float]) -> float | None:
    """Returns the value of this epoch; None if the epoch was not validated.

    Raises:
      ValueError: If the logs have no such key.
    """
    if key in logs:
        return logs[key]
    has_validated = any(name.startswith("val_") for name in logs)
    # With a validation_freq above 1, most epochs have no val_ keys at all.
    if key.startswith("val_") and not has_validated:
        return None
    raise ValueError(f"{who} monitors {key!r}, but the logs have {', '.join(logs)}.")


def find_direction(who: str, key: str, mode: str, state: TrainState) -> str:
    """Returns "max" or "min": the mode, or for "auto" what Keras's own callback finds.

    Raises:
      ValueError: If "auto" cannot tell.
    """
    if mode != "auto":
        return mode
    name = key.removeprefix("val_")
    for metric in _flatten(getattr(state.model, "metrics", [])):
        # The attribute in which Keras's own callback reads it; there is no public one.
        if metric.name == name and name != "loss" and hasattr(metric, "_direction"):
            return "max" if metric._direction == "up" else "min"
    if name.endswith("loss"):
        return "min"
    raise ValueError(
        f"{who} cannot tell whether {key!r} is better high or low: pass mode='max' or mode='min'."
    )


def _flatten(metrics: Iterable[Any]) -> Iterable[Any]:
    for metric in metrics:
        yield metric
        yield from _flatten(getattr(metric, "metrics", []))
