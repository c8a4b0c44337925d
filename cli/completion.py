"""Completion of flags and their values in a shell, by argcomplete: see docs/command_line.md."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Mapping
from typing import Any

from gradloop.engine.options import field_types

from . import catalog
from .config import JobConfig
from .flag_values import none_word

# A shell sets it when it asks for completions.
VARIABLE = "_ARGCOMPLETE"


def is_asked_for(environment: Mapping[str, str]) -> bool:
    """Returns whether a shell has started this process to complete a line, and not to run it."""
    return VARIABLE in environment


def complete(parser: argparse.ArgumentParser) -> int:
    """Tells the shell how the line can go on, which ends the process.

    Returns:
      The exit code, if the library is missing.
    """
    try:
        import argcomplete
        from argcomplete.completers import ChoicesCompleter
    except ImportError:
        return 1
    fields = {field.name: field for field in dataclasses.fields(JobConfig)}
    for action in parser._actions:
        words = list(catalog.GROUPS) if action.dest == "list" else _words(fields.get(action.dest))
        if words is not None:
            vars(action)["completer"] = ChoicesCompleter(dict.fromkeys(words, ""))
    argcomplete.autocomplete(parser, always_complete_options="long", exit_method=_exit)
    return 1


def _exit(code: int) -> None:
    sys.stdout.flush()
    os._exit(code)


def _words(field: dataclasses.Field[Any] | None) -> Any:
    """Returns the words that a setting takes; None: any text, which may be the name of a file."""
    if field is None:
        return None
    kinds = field_types(JobConfig, field.name)
    named = {flag: group for flag, group in catalog.GROUPS.values() if flag}
    words = [*field.metadata.get("choices", ()), *named.get(f"--{field.name}", ())]
    if type(None) in kinds and (words or str not in kinds):
        words.append(none_word(field))
    if bool in kinds:
        words += ["true", "false"]
    is_path = str in kinds and not words
    return None if is_path else sorted(set(words))
