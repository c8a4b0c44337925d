"""Flags: what each field of a config is on the command line."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import typing
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from gradloop.engine.options import ConfigError, check_field, field_types, show
from gradloop.usage import EXIT_USAGE, did_you_mean

from .config import JobConfig

_GROUPS = ("what", "training", "execution", "replicas", "data", "output", "reliability")
# Settings of one call, which a resumed run does not take from its folder. It does take the epochs
# and steps that fast_dev_run has set.
NOT_RESUMED = (
    "mode", "run_dir", "resume", "checkpoint", "fast_dev_run", "profile", "step", "format",
    "num_workers", "max_restarts", "start_secs",
)  # fmt: skip


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
        parser.error(f"unknown argument {unknown[0]!r}. {hint(unknown[0].split('=')[0], legal)}")
    return vars(flags)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}\n")


def hint(word: str, legal: Iterable[str]) -> str:
    """Returns all legal words in a sentence, and the nearest of them in another."""
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
