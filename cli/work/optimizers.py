"""The optimizer that the settings name: Keras's, a person's own, or that of the recipe, changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from gradloop.engine.options import ConfigError

from ..own_code import call_with, is_own, load_object, takes
from ..settings.work import CLIPS, arguments_of
from .schedules import Schedule

_NUMBERS = ("weight_decay", "momentum", *CLIPS)
# Arguments of Keras's optimizers that a flag sets.
_OF_FLAGS = {name: name for name in ("learning_rate", *_NUMBERS)}
_OF_FLAGS |= {"use_ema": "ema", "ema_momentum": "ema"}
_OF_FLAGS["gradient_accumulation_steps"] = "gradient_accumulation_steps"


def is_changed(config: Any) -> bool:
    """Returns whether the settings say something about the optimizer."""
    names = ("optimizer", "learning_rate", "schedule", "warmup_steps", "ema", *_NUMBERS)
    is_set = any(getattr(config, name) is not None for name in names)
    return is_set or bool(arguments_of(config, "optimizer"))


def make_optimizer(config: Any, base: Any, num_updates: int) -> keras.optimizers.Optimizer:
    """Returns the optimizer of the settings. Context: inside the scope of the strategy.

    Args:
      config: A JobConfig.
      base: The optimizer of the recipe, or that a model was compiled with: what no setting changes
        is as in it, unless the settings name another optimizer.
      num_updates: Updates of the whole run, over which a schedule goes.

    Raises:
      ConfigError: If the optimizer does not take a setting, with those that it takes.
    """
    kind, arguments = _begin(config, base)
    for name, value in _settings(config).items():
        _check_takes(kind, name, value)
        arguments[name] = value
    if _sets_rate(config):
        arguments["learning_rate"] = _rate(config, kind, arguments, num_updates)
    chosen = arguments_of(config, "optimizer")
    for name in chosen:
        if name in _OF_FLAGS:
            raise ConfigError(
                f"set=optimizer.{name}={chosen[name]!r}: it has a flag, --{_OF_FLAGS[name]}."
            )
    made = call_with(kind, {}, arguments | chosen, "optimizer")
    if not isinstance(made, keras.optimizers.Optimizer):
        raise ConfigError(
            f"optimizer={config.optimizer!r} returned a {type(made).__name__}, and must return a "
            "keras.optimizers.Optimizer."
        )
    return made


def _begin(config: Any, base: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Returns the class, and its arguments before any setting."""
    name = config.optimizer
    if name is not None:
        return load_object(name, "optimizer") if is_own(name) else _class_of(name), {}
    base = getattr(base, "inner_optimizer", base)  # of a loss scale, which compile adds anew
    arguments = base.get_config()
    if isinstance(arguments.get("learning_rate"), dict):
        arguments["learning_rate"] = keras.optimizers.schedules.deserialize(
            arguments["learning_rate"]
        )
    return type(base), arguments


def _class_of(name: str) -> Callable[..., Any]:
    # Not `keras.optimizers.get`, which does not know Lamb by name.
    classes = {key.lower(): value for key, value in vars(keras.optimizers).items()}
    found: Callable[..., Any] = classes[name.lower()]
    return found


def _settings(config: Any) -> dict[str, Any]:
    found = {name: getattr(config, name) for name in _NUMBERS}
    found |= {"use_ema": config.ema and True, "ema_momentum": config.ema}
    return {name: value for name, value in found.items() if value is not None}


def _sets_rate(config: Any) -> bool:
    return any(
        value is not None for value in (config.learning_rate, config.schedule, config.warmup_steps)
    )


def _rate(
    config: Any, kind: Callable[..., Any], arguments: dict[str, Any], num_updates: int
) -> Any:
    """Returns the learning rate: a number or a schedule."""
    parameter = takes(kind, "learning_rate")
    _check_takes(kind, "learning_rate", config.learning_rate or config.schedule)
    initial = arguments.get("learning_rate", parameter and parameter.default)
    if config.learning_rate is not None:
        initial = config.learning_rate
    chosen = arguments_of(config, "schedule")
    return Schedule(config.schedule, config.warmup_steps, chosen, num_updates).rate(initial)


def _check_takes(kind: Callable[..., Any], name: str, value: Any) -> None:
    if takes(kind, name) is None:
        legal = [flag for argument, flag in _OF_FLAGS.items() if takes(kind, argument)]
        named = getattr(kind, "__name__", kind)
        raise ConfigError(
            f"{_OF_FLAGS[name]}={value}, but {named} takes no {name}. Of the settings it takes "
            f"{', '.join(dict.fromkeys(legal))}."
        )
