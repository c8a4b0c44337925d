"""Which runs a sweep has: values of settings from `--set`, each with each or drawn."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gradloop.engine.options import ConfigError, legal_value
from gradloop.files import parse_json
from gradloop.usage import did_you_mean

from ..config import JobConfig, field_names
from ..flag_values import value_from_text
from ..settings.sweeping import METRIC_SETTINGS
from ..settings.work import SET_PREFIXES

Combination = dict[str, Any]
# Settings of the sweep as a whole.
_OF_THE_SWEEP = (
    "mode", "run_dir", "resume", "run_name", "set", "runs", "search", "num_runs", "metric", "json",
    "direction", "quiet", "print_config",
)  # fmt: skip
_RANGE = re.compile(r"(uniform|log|int|logint)\((.*)\)")
_DIGITS = 6  # of what is drawn: more tell nothing, and fill the table
_MAX_TRIES = 100  # a run


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers between two, both included.

    Attributes:
      kind: "uniform", "log", or of whole numbers "int" and "logint".
      low: Smallest.
      high: Largest.
    """

    kind: str
    low: float
    high: float

    def draw(self, generator: random.Random) -> float | int:
        """Returns one of them."""
        low, high = self.low, self.high
        if self.kind == "int":
            return generator.randint(math.ceil(low), math.floor(high))
        if self.kind == "uniform":
            value = generator.uniform(low, high)
        else:
            value = math.exp(generator.uniform(math.log(low), math.log(high)))
        if self.kind == "logint":
            return min(max(round(value), math.ceil(low)), math.floor(high))
        return min(max(float(f"{value:.{_DIGITS}g}"), low), high)


Space = dict[str, list[Any] | Range]


def combinations(config: JobConfig) -> list[Combination]:
    """Returns the values of each run, by the names that `--set` gives them.

    Raises:
      ConfigError: If a name is of no setting, or a value is not legal.
    """
    space = {name: _parse(name, value) for name, value in _named(config.set or {}).items()}
    if config.search == "grid":
        return _grid(space)
    assert config.num_runs is not None, "checked with the config"
    # Without a seed, too: a sweep that goes on has the same runs.
    return _draw(space, config.num_runs, random.Random(config.seed or 0))


def apply(base: Mapping[str, Any], combination: Combination) -> dict[str, Any]:
    """Returns the settings of a run: those of all runs, and its own."""
    fields = {name: value for name, value in combination.items() if "." not in name}
    arguments = {name: value for name, value in combination.items() if "." in name}
    settings = {**base, **fields, **({"set": arguments} if arguments else {})}
    if not any(settings.get(name) for name in METRIC_SETTINGS):
        settings.pop("direction", None)  # there is no metric that it is of
    return settings


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values by the settings that their names stand for."""
    fields = {name: field for name, field in field_names().items() if field not in _OF_THE_SWEEP}
    named: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_") if "." not in key else key
        prefix, _, argument = name.partition(".")
        if name not in fields and not (prefix in SET_PREFIXES and argument):
            near = did_you_mean(name, [*fields, *(f"{prefix}." for prefix in SET_PREFIXES)])
            raise ConfigError(
                f"set={key}={value}: {key!r} is no setting that runs can differ in, nor an "
                f"argument such as model.units.{near}"
            )
        name = fields.get(name, name)
        if name in named:
            raise ConfigError(f"set has {name} twice: keep one.")
        named[name] = value
    return named


def _parse(name: str, value: Any) -> list[Any] | Range:
    if isinstance(value, str):
        found = _RANGE.fullmatch(value.strip())
        return _range(name, *found.groups()) if found else _values(name, _split(value))
    return _values(name, value if isinstance(value, list) else [value])


def _range(name: str, kind: str, text: str) -> Range:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = math.nan
    is_log, is_whole = kind in ("log", "logint"), "int" in kind
    is_legal = math.isfinite(low) and math.isfinite(high) and low < high
    is_legal &= not (is_log and low <= 0)
    if not is_legal or (is_whole and math.ceil(low) > math.floor(high)):
        needed = " and above 0" if is_log else ""
        needed += " and a whole number among them" if is_whole else ""
        example = "16,256" if is_whole else "1e-4,1e-1"
        raise ConfigError(
            f"set={name}={kind}({text}) must be {kind}(LOW,HIGH), with LOW below HIGH{needed}, as "
            f"in {kind}({example})."
        )
    return Range(kind, low, high)


def _values(name: str, raw: Sequence[Any]) -> list[Any]:
    values: list[Any] = []
    for one in raw:
        value = _value(name, one)
        if value not in values:
            values.append(value)
    if not values:
        raise ConfigError(f"set={name}= has no values.")
    return values


def _value(name: str, raw: Any) -> Any:
    fields = {field.name: field for field in dataclasses.fields(JobConfig)}
    if isinstance(raw, str) and (name not in fields or raw.startswith("[")):
        try:
            raw = parse_json(raw)
        except ValueError:
            return raw
    if name not in fields:
        return raw
    if isinstance(raw, str):
        return value_from_text(fields[name], raw)
    return legal_value(JobConfig, fields[name], raw)


def _split(text: str) -> list[str]:
    """Returns the parts between commas that are not within brackets or quotes."""
    parts, depth, is_quoted = [""], 0, False
    for char in text:
        is_quoted ^= char == '"'
        depth += 0 if is_quoted else (char in "([{") - (char in ")]}")
        if char == "," and depth == 0 and not is_quoted:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def _grid(space: Space) -> list[Combination]:
    for name, values in space.items():
        if isinstance(values, Range):
            raise ConfigError(
                f"set={name}={values.kind}({values.low:g},{values.high:g}) is a range, which a "
                "grid cannot try: name values, or use search='random' and num_runs."
            )
    lists = [values for values in space.values() if isinstance(values, list)]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*lists)]


def _draw(space: Space, num_runs: int, generator: random.Random) -> list[Combination]:
    """Returns different combinations: fewer than asked for where there are no more."""
    drawn: list[Combination] = []
    for _ in range(num_runs * _MAX_TRIES):
        one = {
            name: v.draw(generator) if isinstance(v, Range) else generator.choice(v)
            for name, v in space.items()
        }
        if one not in drawn:
            drawn.append(one)
        if len(drawn) == num_runs:
            break
    return drawn
