"""YAML as its version 1.2 has it, through PyYAML, which reads version 1.1.

There, `no` is a boolean, `1e-3` a text, `010` is 8, `1:30` is 90, and the last of several equal
keys wins: none of this is what a person means in a file of settings.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from gradloop.engine.storage.extras import require_extra

# The core schema, https://yaml.org/spec/1.2.2/#1032-tag-resolution
_SCALARS = {
    "null": (r"~|null|Null|NULL|", "~nN"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
}


def parse_yaml(text: str) -> Any:
    """Returns what a YAML text holds.

    Raises:
      MissingExtra: If PyYAML is not installed.
      ValueError: If it is no YAML, or has a key twice.
    """
    require_extra("yaml", "yaml")
    import yaml

    try:
        return yaml.load(text, Loader=_loader())
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


@functools.cache
def _loader() -> type:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc] # has no type hints
        yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - as in the base

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise ValueError(f"the key {twice!r} is there twice")
            return dict(super().construct_mapping(node, deep))

        def construct_yaml_int(self, node: Any) -> int:
            digits = self.construct_scalar(node)
            return int(digits, 10 if re.fullmatch(r"[-+]?\d+", digits) else 0)

    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
    for kind, (pattern, first) in _SCALARS.items():
        tag, whole = f"tag:yaml.org,2002:{kind}", re.compile(f"^(?:{pattern})$")
        Loader.add_implicit_resolver(tag, whole, [*first, ""])
    return Loader
