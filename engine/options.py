"""The fields of a config: how they are declared, which values are legal, and what errors say."""

from __future__ import annotations

import dataclasses
import functools
import math
import reprlib
import types
import typing
from collections.abc import Mapping
from typing import Any

from gradloop.usage import did_you_mean

from .values import as_python, whole_number_hint

# TensorFlow counts steps and examples in 32 bits in places, and nothing takes so many.
_MAX_INT = 2**31 - 1
# Of a value in a message: a file may hold anything.
_MAX_TEXT = 200
_BRIEF = reprlib.Repr()
_BRIEF.maxlist = _BRIEF.maxdict = 20
_BRIEF.maxstring = _BRIEF.maxother = _MAX_TEXT


class ConfigError(ValueError):
    """A value is not legal: the message names it, the legal ones and the fix."""


def option(default: Any, group: str, help_text: str, **metadata: Any) -> Any:
    """Returns a field of a config.

    Args:
      default: Its value where nobody sets it.
      group: Heading under which `--help` lists it.
      help_text: One line for `--help`.
      **metadata: What `check_field` enforces: `choices`, `minimum`, `maximum`, `above`, `below`;
        `none`: the word that stands for None, "none" without it; and `on_resume`: whether another
        value is "applied" in a run that goes on, "refused", or "warned" about because it changes
        bits. The
        type `list[str]` makes a flag that can be repeated or takes words between commas, and
        `dict[str, Any]` one of `NAME=VALUE` that can be repeated.
    """
    on_resume = "warned" if group == "execution" else "applied"
    defaults = {"group": group, "help": help_text, "on_resume": on_resume}
    return dataclasses.field(default=default, metadata=defaults | metadata)


def check_names(config_class: type, args: tuple[Any, ...], fields: Mapping[str, Any]) -> None:
    """Raises ConfigError if fields are passed by position, or one has no such name."""
    name = config_class.__name__
    if args:
        raise ConfigError(
            f"{name} takes fields by name: {name}(epochs=3), not {name}({args[0]!r})."
        )
    legal = {}
    for field in dataclasses.fields(config_class):
        legal[field.name] = field.name
        legal[field.metadata.get("alias", field.name)] = field.name
    for unknown in fields:
        if legal.get(unknown) != unknown:
            hint = f" Did you mean {legal[unknown]!r}?" if unknown in legal else ""
            hint = hint or did_you_mean(unknown, legal.values())
            hint = hint or f" Legal are {', '.join(sorted(set(legal.values())))}."
            raise ConfigError(f"{name} has no field {unknown!r}.{hint}")


def field_types(config_class: type, name: str) -> tuple[type, ...]:
    """Returns the types that a field's value may have."""
    hint = _hints(config_class)[name]
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(typing.get_origin(one) or one for one in options)


@functools.cache
def _hints(config_class: type) -> dict[str, Any]:
    return typing.get_type_hints(config_class)


def legal_value(config_class: type, field: dataclasses.Field[Any], value: Any) -> Any:
    """Returns a value as a field keeps it: Python's own, and None for the word that means it.

    Raises:
      ConfigError: If it has another type than the field, or is not legal by itself.
    """
    legal_types = field_types(config_class, field.name)
    value = as_python(value, legal_types)
    if isinstance(value, str) and value == field.metadata.get("none"):  # Keras's "auto"
        value = None
    check_field(field, value, legal_types)
    return value


def check_field(field: dataclasses.Field[Any], value: Any, legal_types: tuple[type, ...]) -> None:
    """Raises ConfigError if a value has another type than the field, or is not legal by itself."""
    none = field.metadata.get("none", "none")
    is_bool_for_number = isinstance(value, bool) and bool not in legal_types
    is_int_for_float = isinstance(value, int) and float in legal_types
    choices = field.metadata.get("choices")
    if isinstance(value, str):
        _check_text(field, value)
    if isinstance(value, list | dict) and type(value) in legal_types:
        return _check_words(field, value, choices)
    if bool in legal_types and isinstance(value, str):
        words = [*([none] if type(None) in legal_types else []), *(choices or ())]
        choices = ["true", "false", *words]
    elif is_bool_for_number or not (isinstance(value, legal_types) or is_int_for_float):
        wanted = " or ".join(none if t is type(None) else t.__name__ for t in legal_types)
        fix = f" One of: {', '.join(choices)}." if choices else ""
        if int in legal_types and not choices:
            fix = whole_number_hint(value)
        raise ConfigError(
            f"{field.name}={show(value, none)} must be of type {wanted}, not "
            f"{type(value).__name__}.{fix}"
        )
    is_chosen = value is None or isinstance(value, bool) or value in (choices or ())
    if choices and not is_chosen:
        raise ConfigError(
            f"{field.name}={value!r} is not one of: {', '.join(choices)}."
            f"{did_you_mean(value, choices)}"
        )
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_range(field, value)


def _check_text(field: dataclasses.Field[Any], value: str) -> None:
    """Raises ConfigError if a text is empty, or holds what no name of a file may have."""
    if not value.strip():
        raise ConfigError(f"{field.name}={value!r} is empty: give it a value, or leave it out.")
    if "\0" in value:
        raise ConfigError(f"{field.name}={value!r} holds a null character: leave it out.")


def _check_words(
    field: dataclasses.Field[Any], value: list[Any] | dict[str, Any], choices: Any
) -> None:
    """Raises ConfigError if a list holds something that is no choice, or a name is empty."""
    if field.metadata.get("minimum") is not None:
        return  # of numbers: the class of the config checks them
    for word in value:
        if not isinstance(word, str) or not word.strip():
            raise ConfigError(f"{field.name}={value!r} must hold names that are not empty.")
        if choices and word not in choices:
            raise ConfigError(
                f"{field.name}={word!r} is not one of: {', '.join(choices)}."
                f"{did_you_mean(word, choices)}"
            )


def _check_range(field: dataclasses.Field[Any], value: int | float) -> None:
    minimum, above = field.metadata.get("minimum"), field.metadata.get("above")
    maximum, below = field.metadata.get("maximum"), field.metadata.get("below")
    if isinstance(value, int):
        maximum = maximum or _MAX_INT
    elif not math.isfinite(value):
        raise ConfigError(f"{field.name}={value} must be a finite number.")
    if maximum is not None and value > maximum:
        raise ConfigError(f"{field.name}={show(value)} must be {maximum} or less.")
    if below is not None and not value < below:
        raise ConfigError(f"{field.name}={value} must be below {below}.")
    if minimum is not None and value < minimum:
        raise ConfigError(f"{field.name}={value} must be {minimum} or more.")
    if above is not None and not value > above:
        raise ConfigError(f"{field.name}={value} must be above {above}.")


def show(value: object, none: str = "none") -> str:
    """Returns a value as a person writes it in a flag; `none` stands for None."""
    if value is None:
        return none
    if isinstance(value, list | dict):
        return _BRIEF.repr(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."
