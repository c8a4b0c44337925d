"""Where the values of a config come from: flags, files, the folder of a resumed run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import tomllib
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from gradloop.engine.options import ConfigError, check_field, field_types, show
from gradloop.usage import EXIT_USAGE, did_you_mean

from .config import FAST_DEV_RUN_STEPS, JobConfig

_GROUPS = ("what", "training", "execution", "replicas", "data", "output", "reliability")
# Settings of one call, which a resumed run does not take from its folder. It does take the epochs
# and steps that fast_dev_run has set.
NOT_RESUMED = (
    "mode", "run_dir", "resume", "checkpoint", "fast_dev_run", "profile", "step", "format",
    "num_workers", "max_restarts", "start_secs",
)  # fmt: skip


def read_choices(argv: Sequence[str], *, prog: str, description: str) -> dict[str, Any]:
    """Returns the settings that a person chose.

    Flags win over the config file, which wins over the config.json of a resumed run.

    Args:
      argv: The command line without the program's name.
      prog: Name of the program in messages.
      description: First line of `--help`.

    Returns:
      Field to value, and `print_config` if it was given.

    Raises:
      ConfigError: If a file cannot be read or has an unknown key, or a flag does nothing in the
        mode.
    """
    flags = parse_flags(argv, prog=prog, description=description)
    chosen = read_config_file(flags.pop("config")) if "config" in flags else {}
    chosen |= flags
    _check_modes(flags, chosen.get("mode", JobConfig.mode))
    if chosen.get("mode") == "replay" and "run_dir" in chosen:
        chosen.setdefault("resume", True)
    if chosen.get("resume") in (True, "auto") and isinstance(chosen.get("run_dir"), str):
        chosen = read_saved_settings(chosen["run_dir"]) | chosen
    return chosen


def read_saved_settings(run_dir: str | Path) -> dict[str, Any]:
    """Returns the settings of the run in a folder that one which goes on has too.

    Raises:
      ConfigError: If its config.json cannot be read.
    """
    path = Path(run_dir, "config.json")
    saved = read_config_file(path) if path.exists() else {}
    return {name: value for name, value in saved.items() if name not in NOT_RESUMED}


def _check_modes(flags: Mapping[str, Any], mode: str) -> None:
    """Raises ConfigError if a flag was given that does nothing in this mode."""
    for field in dataclasses.fields(JobConfig):
        modes = field.metadata.get("modes", (mode,))
        if field.name in flags and mode not in modes:
            raise ConfigError(
                f"{field.name} is for mode {' or '.join(map(repr, modes))}, and this is "
                f"mode={mode!r}: leave it out."
            )


def parse_flags(argv: Sequence[str], *, prog: str, description: str) -> dict[str, Any]:
    """Returns field to value for the flags that were given, `config` and `print_config` included.

    In a flag `-` and `_` are the same. Wrong usage prints one line and exits with 2; `--help` exits
    with 0.
    """
    parser = _Parser(prog=prog, description=description, allow_abbrev=False, add_help=True)
    groups = {name: parser.add_argument_group(name) for name in _GROUPS}
    for field in dataclasses.fields(JobConfig):
        _add_flag(groups[field.metadata["group"]], field)
    more: dict[str, dict[str, Any]] = {
        "--config": {
            "metavar": "FILE",
            "help": "JSON or TOML file of settings; overrides the recipe, is overridden by flags",
        },
        "--print_config": {"action": "store_true", "help": "print all settings as JSON and exit"},
    }
    for name, arguments in more.items():
        groups["output"].add_argument(name, default=argparse.SUPPRESS, **arguments)
    flags, unknown = parser.parse_known_args([_underscores(arg) for arg in argv])
    if unknown:
        legal = [s for action in parser._actions for s in action.option_strings]
        parser.error(f"unknown argument {unknown[0]!r}. {_hint(unknown[0].split('=')[0], legal)}")
    return vars(flags)


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
    names = _names()
    for key in values:
        if key not in names:
            raise ConfigError(
                f"config file {str(path)!r}: unknown key {key!r}. {_hint(key, names)}"
            )
    return {names[key]: value for key, value in values.items()}


def make_config(*layers: Mapping[str, Any]) -> JobConfig:
    """Merges layers of values over the defaults: recipe, file, flags. Later layers win.

    Raises:
      ConfigError: If the result is not legal.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values.update(layer)
    if values.get("fast_dev_run"):
        values |= {
            "epochs": 1, "initial_epoch": 0, "steps_per_epoch": FAST_DEV_RUN_STEPS,
            "validation_steps": FAST_DEV_RUN_STEPS,
        }  # fmt: skip
    return JobConfig(**values)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}\n")


def _names() -> dict[str, str]:
    """Returns each legal key, aliases included, with the field it sets."""
    names = {}
    for field in dataclasses.fields(JobConfig):
        names[field.name] = field.name
        if "alias" in field.metadata:
            names[field.metadata["alias"]] = field.name
    return names


def _hint(word: str, legal: Iterable[str]) -> str:
    legal = sorted(legal)
    return f"Legal: {', '.join(legal)}.{did_you_mean(word, legal)}"


def _add_flag(group: argparse._ArgumentGroup, field: dataclasses.Field[Any]) -> None:
    flags = [f"--{field.name}"]
    if "alias" in field.metadata:
        flags.append(f"--{field.metadata['alias']}")
    default = field.metadata.get("default_text") or show(field.default, _none_of(field))
    help_text = f"{field.metadata['help']} (default: {default})".replace("%", "%%")
    options: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
    kinds = field_types(JobConfig, field.name)
    if bool in kinds:
        words = [*_words(field), *field.metadata.get("choices", ())]
        group.add_argument(
            *flags, nargs="?", const=True, type=_flag_type(field), help=help_text,
            metavar="|".join(["BOOL", *words]), **options,
        )  # fmt: skip
        group.add_argument(f"--no_{field.name}", action="store_const", const=False,
                           help=argparse.SUPPRESS, **options)  # fmt: skip
        return
    if dict in kinds or (list in kinds and int not in kinds):
        action, metavar = (_Pairs, "NAME=VALUE") if dict in kinds else (_Words, field.name.upper())
        group.add_argument(*flags, action=action, metavar=metavar, help=help_text, **options)
        return
    legal = field.metadata.get("choices")
    metavar = "{" + ",".join(legal) + "}" if legal else field.name.upper()
    group.add_argument(*flags, metavar=metavar, type=_flag_type(field), help=help_text, **options)
    for value, meaning in field.metadata.get("shortcuts", {}).items():
        same = f"same as --{field.name} {value}: {meaning}"
        group.add_argument(f"--{value}", action="store_const", const=value, help=same, **options)


class _Words(argparse.Action):
    """A flag of words: it can be repeated, and takes several between commas."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        words = [word.strip() for word in values.split(",")]
        setattr(namespace, self.dest, [*getattr(namespace, self.dest, []), *words])


class _Pairs(argparse.Action):
    """A flag of `NAME=VALUE`, which can be repeated; values are what JSON reads, else text."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        name, equals, text = values.partition("=")
        if not name or not equals:
            raise argparse.ArgumentError(self, f"{values!r} must be NAME=VALUE.")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        setattr(namespace, self.dest, getattr(namespace, self.dest, {}) | {name.strip(): value})


def _none_of(field: dataclasses.Field[Any]) -> str:
    """Returns the word that stands for None."""
    return str(field.metadata.get("none", "none"))


def _words(field: dataclasses.Field[Any]) -> list[str]:
    return [_none_of(field)] if type(None) in field_types(JobConfig, field.name) else []


def _flag_type(field: dataclasses.Field[Any]) -> typing.Callable[[str], Any]:
    legal_types = field_types(JobConfig, field.name)

    def convert(text: str) -> Any:
        value = _from_text(text, legal_types, _none_of(field))
        try:
            check_field(field, value, legal_types)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return value

    return convert


def _from_text(text: str, legal_types: tuple[type, ...], none: str) -> Any:
    if type(None) in legal_types and text.lower() == none:
        return None
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


def _underscores(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    flag, equals, value = argument.partition("=")
    return "--" + flag[2:].replace("-", "_") + equals + value
