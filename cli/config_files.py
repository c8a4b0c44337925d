"""Settings from files: those that a person writes, and the config.json of a run."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from gradloop.engine.options import ConfigError

from .config import field_names
from .flags import NOT_RESUMED, hint


def read_saved_settings(run_dir: str | Path) -> dict[str, Any]:
    """Returns the settings of the run in a folder that one which goes on has too.

    Raises:
      ConfigError: If its config.json cannot be read.
    """
    path = Path(run_dir, "config.json")
    saved = read_config_file(path) if path.exists() else {}
    return {name: value for name, value in saved.items() if name not in NOT_RESUMED}


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Returns field to value from a `.json` or `.toml` file; aliases become their fields.

    Raises:
      ConfigError: If the file cannot be read, or a key is not a field of `JobConfig`.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"config file {str(path)!r} cannot be read as JSON or TOML: {error}"
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"config file {str(path)!r} must hold an object of fields, not a {values!r}"
        )
    values = {key.replace("-", "_"): value for key, value in values.items()}
    names = field_names()
    for key in values:
        if key not in names:
            raise ConfigError(f"config file {str(path)!r}: unknown key {key!r}. {hint(key, names)}")
    return {names[key]: value for key, value in values.items()}
