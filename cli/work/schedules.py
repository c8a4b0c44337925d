"""The schedules of the learning rate: Keras's, over all updates of a run, with a warm-up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras

from gradloop.engine.options import ConfigError

from ..own_code import call_with, is_own, load_object

schedules = keras.optimizers.schedules
# A number, or one of `schedules`.
Rate = Any
# What a schedule takes beside the first rate and the number of updates, unless `set` says else.
_TO_A_HUNDREDTH = {"decay_rate": 0.01}
_TO_A_TENTH = {"decay_rate": 9.0}
_TO_ZERO = {"end_learning_rate": 0.0}
_MAKERS: dict[str, tuple[Callable[..., Any], Mapping[str, Any]]] = {
    "cosine": (schedules.CosineDecay, {}),
    "cosine_restarts": (schedules.CosineDecayRestarts, {}),
    "exponential": (schedules.ExponentialDecay, _TO_A_HUNDREDTH),
    "inverse_time": (schedules.InverseTimeDecay, _TO_A_TENTH),
    "linear": (schedules.PolynomialDecay, _TO_ZERO),
    "polynomial": (schedules.PolynomialDecay, _TO_ZERO | {"power": 2.0}),
    "step": (schedules.PiecewiseConstantDecay, {}),
}


@keras.saving.register_keras_serializable("gradloop")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]  # untyped
    """A rate that rises from 0 in a line, as `CosineDecay` warms up, and then follows another.

    Args:
      rate: A number, or the schedule to follow.
      warmup_steps: Updates until the first rate is reached.

    Example:
      >>> schedule = WarmUp(0.5, warmup_steps=2)
      >>> [float(schedule(step)) for step in range(4)]
      [0.0, 0.25, 0.5, 0.5]
    """

    def __init__(self, rate: Any, warmup_steps: int) -> None:
        super().__init__()
        is_serialized = isinstance(rate, dict)
        self.rate = schedules.deserialize(rate) if is_serialized else rate
        self.warmup_steps = warmup_steps

    def __call__(self, step: Any) -> Any:
        """Returns the rate of an update, scalar float32; `step` counts from 0."""
        done = keras.ops.cast(step, "float32") - self.warmup_steps
        later = keras.ops.maximum(done, 0.0)
        rate = self.rate(later) if callable(self.rate) else self.rate
        first = self.rate(0) if callable(self.rate) else self.rate
        rising = first * (done + self.warmup_steps) / self.warmup_steps
        return keras.ops.where(done < 0, rising, rate)

    def get_config(self) -> dict[str, Any]:
        """Returns what the constructor takes."""
        rate = schedules.serialize(self.rate) if callable(self.rate) else self.rate
        return {"rate": rate, "warmup_steps": self.warmup_steps}


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What the settings say of the learning rate.

    Attributes:
      name: A name of `SCHEDULES`, or "pkg.module:name"; None: as the optimizer has it.
      warmup_steps: Updates in which the rate rises; None: no such.
      chosen: Arguments of the schedule that a person has set.
      num_updates: Updates of the whole run.
    """

    name: str | None
    warmup_steps: int | None
    chosen: Mapping[str, Any]
    num_updates: int

    @property
    def _kind(self) -> str | None:
        """The name, in lower case where it is one of `SCHEDULES`: settings take any case."""
        return self.name if self.name is None or is_own(self.name) else self.name.lower()

    def rate(self, initial: Rate) -> Rate:
        """Returns the learning rate for an optimizer.

        Args:
          initial: The rate without the settings; of a schedule, its first rate counts.

        Raises:
          ConfigError: If the schedule takes no such argument, or the warm-up is no shorter than
            the run.
        """
        warmup = self.warmup_steps or 0
        if warmup >= self.num_updates:
            raise ConfigError(
                f"warmup_steps={warmup}, but the run has {self.num_updates} updates: pass fewer, "
                "or train for more epochs."
            )
        if self._kind in (None, "constant"):
            rate = initial if self._kind is None else _first(initial)
            return WarmUp(rate, warmup) if warmup else rate
        if self._kind == "cosine" and warmup:  # Keras's own
            return self._make(0.0, {"warmup_target": _first(initial), "warmup_steps": warmup})
        made = self._make(_first(initial), {})
        return WarmUp(made, warmup) if warmup else made

    def _make(self, initial: float, more: Mapping[str, Any]) -> Any:
        name = str(self._kind)
        num_updates = self.num_updates - (self.warmup_steps or 0)
        offered = {"initial_learning_rate": initial, "decay_steps": num_updates, **more}
        if is_own(name):
            made = call_with(load_object(name, "schedule"), offered, self.chosen, "schedule")
            if not callable(made):
                raise ConfigError(
                    f"schedule={name!r} returned a {type(made).__name__}, and must return a "
                    "keras.optimizers.schedules.LearningRateSchedule."
                )
            return made
        make, defaults = _MAKERS[name]
        offered |= defaults
        if name == "step":
            offered |= _steps(initial, num_updates, self.chosen.get("boundaries"))
        offered["first_decay_steps"] = max(1, -(-num_updates // 7))  # of 1 + 2 + 4: three cycles
        return call_with(make, offered, self.chosen, "schedule")


def _first(rate: Any) -> float:
    """Returns the first rate of a schedule, as it was given; a number as it is."""
    if not callable(rate):
        return float(rate)
    config = rate.get_config()
    return float(config.get("initial_learning_rate", rate(0)))


def _steps(initial: float, num_updates: int, boundaries: Any) -> dict[str, list[Any]]:
    """Returns boundaries, and a tenth of the rate before at each: at a half and three quarters."""
    found = sorted({num_updates // 2, num_updates * 3 // 4}) if boundaries is None else boundaries
    if not isinstance(found, list) or not found or not all(map(_is_number, found)):
        raise ConfigError(
            f"set=schedule.boundaries={boundaries!r} must be a list of numbers of updates, such as "
            "schedule.boundaries=[100,200]."
        )
    return {"boundaries": found, "values": [initial * 0.1**i for i in range(len(found) + 1)]}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
