"""Steps and times as people write them in flags, and lines as a terminal has room for them."""

from __future__ import annotations

import os
import re
import textwrap
from typing import TextIO

from gradloop.engine.options import ConfigError

_UNIT_SECS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def parse_profile(text: str, num_steps: int | None = None) -> tuple[int, int]:
    """Returns the first and the last step to profile, counted from 1 as in Keras's TensorBoard.

    Args:
      text: "A,B".
      num_steps: Number of steps of the run; None: unknown.

    Raises:
      ConfigError: If the text is no such pair, or the run has fewer steps.

    Example:
      >>> parse_profile("20,40")
      (20, 40)
    """
    found = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ConfigError(
            f"profile={text} must be A,B: the first step, 1 or more, and the last one, not below "
            "the first, as in 20,40."
        )
    first, last = int(found[1]), int(found[2])
    if num_steps is not None and last > num_steps:
        raise ConfigError(
            f"profile={text}, but this run has {num_steps} steps: name steps from 1 to {num_steps}."
        )
    return first, last


def wrapped(text: str, stream: TextIO) -> str:
    """Returns a text whose lines fit on a terminal, broken between words; for a file, as it is."""
    try:
        num_columns = os.get_terminal_size(stream.fileno()).columns if stream.isatty() else 0
    except (OSError, ValueError):  # It has no file descriptor, or a strange one.
        num_columns = 0
    if num_columns <= 0:
        return text
    return "\n".join(_wrap(line, num_columns) for line in text.split("\n"))


def _wrap(line: str, num_columns: int) -> str:
    if len(line) <= num_columns:
        return line
    # A name and its value stay together, and so does a share of something.
    joined = re.sub(r"(\d) % ", "\\1\0%\0", line).replace(": ", ":\0")
    text = textwrap.fill(
        joined, num_columns, subsequent_indent=_indent(line, num_columns),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return text.replace("\0", " ")


def _indent(line: str, num_columns: int) -> str:
    """Returns the spaces below which the text of a line goes on: behind its name, if it has one."""
    name = re.match(r" *\S+ {2,}", line)
    return " " * (len(name[0]) if name and len(name[0]) <= num_columns // 4 else 2)


def parse_duration(text: str) -> float:
    """Returns the seconds of a time as a person writes it.

    Raises:
      ConfigError: If it is none, or no time at all.

    Example:
      >>> parse_duration("1h30m"), parse_duration("90")
      (5400.0, 90.0)
    """
    number = r"(\d+(?:\.\d+)?)"
    parts = "".join(f"(?:{number}{unit})?" for unit in _UNIT_SECS)
    found = re.fullmatch(parts, text.strip()) or re.fullmatch(number, text.strip())
    counts = [float(count or 0) for count in found.groups()] if found is not None else []
    unit_secs = _UNIT_SECS.values() if len(counts) > 1 else [1.0]
    secs = sum(count * unit for count, unit in zip(counts, unit_secs, strict=False))
    if secs <= 0:
        raise ConfigError(
            f"max_time={text} must be a time above 0: 90s, 30m, 2h, 1h30m, 1d, or seconds."
        )
    return secs
