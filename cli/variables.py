"""Settings from environment variables: `GRADLOOP_LEARNING_RATE=1e-3`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gradloop.engine.options import ConfigError
from gradloop.usage import did_you_mean

from .config import JobConfig, field_names
from .flag_values import value_from_text

PREFIX = "GRADLOOP_"
# Of `gradloop.data`: the folder of the datasets, not a setting of a run.
_OTHERS = {"GRADLOOP_DATA"}


def read_variables(environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Returns for each variable that is a setting its name, and what it sets.

    Raises:
      ConfigError: If there is no such setting, its value is not legal, or two variables set one.
    """
    fields = {field.name: field for field in dataclasses.fields(JobConfig)}
    names = {PREFIX + name.upper(): field for name, field in field_names().items()}
    found: dict[str, dict[str, Any]] = {}
    set_by: dict[str, str] = {}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable in _OTHERS:
            continue
        if variable not in names:
            raise ConfigError(
                f"the environment variable {variable} is no setting: unset it."
                f"{did_you_mean(variable, names)}"
            )
        name = names[variable]
        if name in set_by:
            raise ConfigError(f"{set_by[name]} and {variable} are the same setting: unset one.")
        set_by[name] = variable
        try:
            found[variable] = {name: value_from_text(fields[name], text)}
        except ConfigError as error:
            raise ConfigError(f"the environment variable {variable}: {error}") from error
    return found


def without_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns an environment for a process whose settings are all given otherwise."""
    return {
        name: text
        for name, text in environment.items()
        if not name.startswith(PREFIX) or name in _OTHERS
    }
