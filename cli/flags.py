"""Flags: what each field of a config is on the command line."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from gradloop.engine.options import ConfigError, field_types, show
from gradloop.usage import EXIT_USAGE, did_you_mean

from . import catalog
from .config import MODES, JobConfig
from .flag_values import is_of_pairs, is_of_words, none_word, value_from_text

_SPELLED = "_spelled"  # of the namespace: setting to the flag that has set it
_GROUPS = ("what", "training", "execution", "replicas", "data", "output", "reliability", "sweep")
# Settings of one call, which a resumed run does not take from its folder. It does take the epochs
# and steps that fast_dev_run has set.
NOT_RESUMED = (
    "mode", "run_dir", "resume", "checkpoint", "fast_dev_run", "profile", "step", "format",
    "num_workers", "max_restarts", "start_secs", "runs", "search", "num_runs", "metric", "json",
)  # fmt: skip


def parse_flags(argv: Sequence[str], *, prog: str, description: str) -> dict[str, Any]:
    """Returns field to value for the flags that were given, `config` and `print_config` included.

    In a flag `-` and `_` are the same. Of a flag that is repeated the last one wins; words and
    pairs add up. Wrong usage prints one line and exits with 2; `--help`, `--list` and
    `--version` exit with 0.
    """
    parser = make_parser(prog=prog, description=description)
    words = [_underscores(arg) for arg in argv]
    flags, unknown = parser.parse_known_args(words, argparse.Namespace(**{_SPELLED: {}}))
    # The only mode with words that are no flags.
    if unknown and getattr(flags, "mode", None) == "compare_runs":
        flags.runs = [*getattr(flags, "runs", []), *(w for w in unknown if not w.startswith("-"))]
        unknown = [word for word in unknown if word.startswith("-")]
    if unknown:
        parser.error(_describe_unknown(unknown[0], parser))
    return {name: value for name, value in vars(flags).items() if name != _SPELLED}


_EPILOG = (
    "A BOOL is true, false, or nothing, which is true; --no_NAME is false. Settings also come from "
    "files (--config) and variables (GRADLOOP_NAME)."
)


def make_parser(*, prog: str, description: str) -> argparse.ArgumentParser:
    """Returns the parser of all flags."""
    parser = _Parser(prog=prog, description=description, epilog=_EPILOG, allow_abbrev=False)
    groups = {name: parser.add_argument_group(name) for name in _GROUPS}
    for field in dataclasses.fields(JobConfig):
        _add_flag(groups[field.metadata["group"]], field)
    output = groups["output"]
    output.add_argument(
        "--config", metavar="FILE", action=_Files, default=argparse.SUPPRESS,
        help="JSON, TOML or YAML file of settings; overrides the recipe, is overridden by "
        "GRADLOOP_* variables and flags; of several, the last wins",
    )  # fmt: skip
    output.add_argument(
        "--print_config", action="store_true", default=argparse.SUPPRESS,
        help="print all settings as JSON and exit",
    )  # fmt: skip
    what = groups["what"]
    what.add_argument(
        "--list", nargs="*", metavar="GROUP", action=_List,
        default=argparse.SUPPRESS,
        help="print the names that flags take, each with a line, and exit: all, or these groups: "
        + ", ".join(catalog.GROUPS),
    )  # fmt: skip
    what.add_argument(
        "--version", nargs=0, action=_Version, default=argparse.SUPPRESS,
        help="print versions and exit",
    )  # fmt: skip
    return parser


def _describe_unknown(argument: str, parser: argparse.ArgumentParser) -> str:
    if argument in MODES:
        return f"unknown argument {argument!r}. Did you mean '--mode {argument}'?"
    legal = [flag for action in parser._actions for flag in action.option_strings]
    near = did_you_mean(argument.split("=")[0], legal)
    return f"unknown argument {argument!r}.{near or ' --help lists the flags.'}"


class _Parser(argparse.ArgumentParser):
    """Refuses wrong usage in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}\n")


def hint(word: str, legal: Iterable[str]) -> str:
    """Returns the legal word that is nearest in a sentence, or all of them."""
    legal = sorted(legal)
    return did_you_mean(word, legal).strip() or f"Legal: {', '.join(legal)}."


def _add_flag(group: argparse._ArgumentGroup, field: dataclasses.Field[Any]) -> None:
    """Adds the flag of a field, and those that are short for one of its values."""
    default = field.metadata.get("default_text") or show(field.default, none_word(field))
    help_text = f"{field.metadata['help']} (default: {default})".replace("%", "%%")
    names = [f"--{name}" for name in (field.name, field.metadata.get("alias")) if name]
    options: dict[str, Any] = {
        "dest": field.name, "default": argparse.SUPPRESS, "action": _Flag, "field": field,
    }  # fmt: skip
    is_bool = bool in field_types(JobConfig, field.name)
    more: dict[str, Any] = {"nargs": "?", "const": True} if is_bool else {}
    group.add_argument(*names, metavar=_metavar(field), help=help_text, **options, **more)
    if is_bool:
        group.add_argument(
            f"--no_{field.name}", nargs=0, const=False, help=argparse.SUPPRESS, **options
        )
    for value, meaning in field.metadata.get("shortcuts", {}).items():
        same = f"same as --{field.name} {value}: {meaning}"
        group.add_argument(f"--{value}", nargs=0, const=value, help=same, **options)


def _metavar(field: dataclasses.Field[Any]) -> str:
    kinds = field_types(JobConfig, field.name)
    legal = field.metadata.get("choices", ())
    if bool in kinds:
        none = [none_word(field)] if type(None) in kinds else []
        return "|".join(["BOOL", *none, *legal])
    if is_of_pairs(field):
        return "NAME=VALUE"
    return "{" + ",".join(legal) + "}" if legal else field.name.upper()


class _Flag(argparse.Action):
    """The flag of a setting: its value is checked where it is read.

    Words and pairs are added to those of before.
    """

    def __init__(self, *args: Any, field: dataclasses.Field[Any], **options: Any) -> None:
        super().__init__(*args, **options)
        self.field = field

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        self._refuse_another(getattr(namespace, _SPELLED), str(option_string))
        value = self._value(values) if isinstance(values, str) else self.const
        before = getattr(namespace, self.dest, None)
        if isinstance(value, list) and is_of_words(self.field):
            value = [*(before or []), *value]
        elif isinstance(value, dict):
            value = {**(before or {}), **value}
        setattr(namespace, self.dest, value)

    def _value(self, text: str) -> Any:
        try:
            return value_from_text(self.field, text)
        except ConfigError as error:
            raise argparse.ArgumentError(self, str(error)) from error

    def _refuse_another(self, spelled: dict[str, str], flag: str) -> None:
        """Raises ArgumentError if the setting was given by another flag."""
        name = flag.replace("--no_", "--", 1)
        before = spelled.setdefault(self.dest, name)
        if before != name:
            raise argparse.ArgumentError(
                None, f"{before} and {name} both set {self.dest}: leave one of them out."
            )


class _List(argparse.Action):
    """Prints the names in some groups, or in all of them, and ends, as `--help` does."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        for group in values:
            if group not in catalog.GROUPS:
                raise argparse.ArgumentError(
                    self, f"there is no group {group!r}. {hint(group, catalog.GROUPS)}"
                )
        print(catalog.to_text(values))
        parser.exit()


class _Version(argparse.Action):
    """Prints the versions of gradloop and of what it runs on, and ends."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        from .versions import describe_versions  # it takes a while to look them up

        print(describe_versions())
        parser.exit()


class _Files(argparse.Action):
    """Files, in the order in which they are named."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        if not values.strip():
            raise argparse.ArgumentError(self, "the name of the file is empty: leave it out.")
        setattr(namespace, self.dest, [*getattr(namespace, self.dest, []), values])


def _underscores(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    flag, equals, value = argument.partition("=")
    return "--" + flag[2:].replace("-", "_") + equals + value
