"""Values of settings from text, as flags and environment variables hold it."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from gradloop.engine.options import ConfigError, check_field, field_types
from gradloop.files import parse_json

from .config import JobConfig

_PAIR = re.compile(r"\s*([^=\s]+)\s*=(.*)", re.DOTALL)


def none_word(field: dataclasses.Field[Any]) -> str:
    """Returns the word that stands for None."""
    return str(field.metadata.get("none", "none"))


def is_of_words(field: dataclasses.Field[Any]) -> bool:
    """Returns whether a field is a list of words."""
    kinds = field_types(JobConfig, field.name)
    return list in kinds and int not in kinds


def is_of_pairs(field: dataclasses.Field[Any]) -> bool:
    """Returns whether a field holds values by name."""
    return dict in field_types(JobConfig, field.name)


def value_from_text(field: dataclasses.Field[Any], text: str) -> Any:
    """Returns the value of a field that a text stands for.

    Words are separated by commas; `NAME=VALUE` is one pair, whose value is what JSON reads, or else
    the text itself.

    Raises:
      ConfigError: If it stands for none that is legal.
    """
    legal_types = field_types(JobConfig, field.name)
    value: Any
    if text.lower() == none_word(field) and type(None) in legal_types:
        value = None
    elif is_of_pairs(field):
        value = _pair(field, text)
    elif is_of_words(field):
        value = [word.strip() for word in text.split(",")]
    else:
        value = _scalar(text, legal_types)
    check_field(field, value, legal_types)
    return value


def _pair(field: dataclasses.Field[Any], text: str) -> dict[str, Any]:
    found = _PAIR.fullmatch(text)
    if found is None:
        raise ConfigError(f"{field.name}={text} must be NAME=VALUE.")
    try:
        return {found[1]: parse_json(found[2])}
    except ValueError:
        return {found[1]: found[2]}


def _scalar(text: str, legal_types: tuple[type, ...]) -> Any:
    if bool in legal_types and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        if number in legal_types:
            try:
                return number(text)
            except ValueError:
                continue
    if list in legal_types and re.fullmatch(r"\d+(,\d+)+", text):
        return [int(number) for number in text.split(",")]
    return text
