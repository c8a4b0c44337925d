"""Settings from files: those that a person writes, and the config.json of a run."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from gradloop.engine.options import ConfigError, field_types, legal_value, show
from gradloop.engine.storage.extras import MissingExtra
from gradloop.files import parse_json

from .config import JobConfig, field_names
from .flag_values import none_word
from .flags import NOT_RESUMED, hint
from .run_directory import run_beside
from .settings.data import DataSettings
from .settings.work import WorkSettings
from .yaml_files import parse_yaml

# A checkpoint is evaluated with their arguments: the step, hooks and optimizer are not used.
_MEASURED = ("model", "dataset", "loss")
_READERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    ".json": ("JSON", parse_json),
    ".yaml": ("YAML", parse_yaml),
    ".yml": ("YAML", parse_yaml),
}


def read_saved_settings(run_dir: str | Path) -> dict[str, Any]:
    """Returns the settings of the run in a folder that one which goes on has too.

    Raises:
      ConfigError: If its config.json cannot be read.
    """
    path = Path(run_dir, "config.json")
    saved = read_config_file(path) if path.exists() else {}
    return {name: value for name, value in saved.items() if name not in NOT_RESUMED}


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Returns field to value from a `.json`, `.yaml` or TOML file; aliases become their fields.

    Raises:
      ConfigError: If the file cannot be read, a key is not a field of `JobConfig`, two keys are the
        same field, or a value is not legal by itself.
    """
    path = Path(path)
    keys: dict[str, Any] = {}
    values: dict[str, Any] = {}
    names = field_names()
    fields = {field.name: field for field in dataclasses.fields(JobConfig)}
    try:
        for key, value in _read(path).items():
            name = str(key).replace("-", "_")
            if name not in names:
                raise ConfigError(f"unknown key {key!r}. {hint(name, names)}")
            name = names[name]
            if name in keys:
                raise ConfigError(f"{keys[name]!r} and {key!r} are the same setting: keep one.")
            keys[name] = key
            values[name] = _value(fields[name], value)
    except ConfigError as error:
        raise ConfigError(f"config file {str(path)!r}: {error}") from error
    return values


def _value(field: dataclasses.Field[Any], value: Any) -> Any:
    """Returns a value of a file: the word for None is None, which TOML does not have."""
    if type(None) in field_types(JobConfig, field.name) and value == none_word(field):
        return None
    return legal_value(JobConfig, field, value)


def _read(path: Path) -> dict[Any, Any]:
    kind, parse = _READERS.get(path.suffix.lower(), ("TOML", tomllib.loads))
    try:
        # Some editors begin a file with a byte order mark.
        values = parse(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"it cannot be read: {error.strerror or error}.") from error
    except MissingExtra as error:
        raise ConfigError(str(error)) from error
    except RecursionError:
        raise ConfigError(
            f"it cannot be read as {kind}: it has too many brackets within brackets."
        ) from None
    except ValueError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(f"it cannot be read as {kind}: {reason}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"it must hold an object of fields, not a {type(values).__name__}.")
    return values


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings of which the second win; in those of names and values, name by name.

    Example:
      >>> overlaid({"seed": 1, "set": {"model.units": 2}}, {"set": {"model.depth": 3}})
      {'seed': 1, 'set': {'model.units': 2, 'model.depth': 3}}
    """
    merged = {**below, **above}
    for name, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(name), dict):
            merged[name] = below[name] | value
    return merged


def read_settings_beside(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of the work of the run whose checkpoint is evaluated.

    Args:
      chosen: Settings that a person chose: `mode`, `checkpoint`, and more.

    Raises:
      ConfigError: If another model is chosen than that of the checkpoint.
    """
    folder = run_beside(Path(chosen["checkpoint"]))
    if folder is None:
        return {}
    saved = read_saved_settings(folder)
    for name in ("model", "set"):
        before = _of_the_model(saved).get(name)
        now = _of_the_model(overlaid(saved, chosen)).get(name)
        if now != before:
            raise ConfigError(
                f"{name}={show(now)}, but the run in {folder} has {show(before)}, and its weights "
                "are of that: leave it out."
            )
    found = {name: value for name, value in saved.items() if name in _of_work(chosen["mode"])}
    # Another dataset or loss that is chosen has arguments of its own.
    same = {name for name in _MEASURED if chosen.get(name, saved.get(name)) == saved.get(name)}
    return found | {"set": _arguments(saved, same)}


def _of_the_model(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": settings.get("model"), "set": _arguments(settings, {"model"})}


def _arguments(settings: Mapping[str, Any], prefixes: Collection[str]) -> dict[str, Any] | None:
    """Returns those arguments of `set` that have one of some prefixes; None if there is none."""
    values = settings.get("set") or {}
    return {k: v for k, v in values.items() if k.partition(".")[0] in prefixes} or None


def _of_work(mode: str) -> set[str]:
    """Returns the settings that say what a checkpoint is of, and what it is measured on."""
    kinds = (WorkSettings, DataSettings)
    fields = [field for kind in kinds for field in dataclasses.fields(kind)]
    names = {f.name for f in fields if mode in f.metadata.get("modes", (mode,))}
    return names | {"global_batch_size", "precision", "seed"}
