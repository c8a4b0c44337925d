"""Packages whose public names are imported when they are first used (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def attach(
    package: str,
    homes: Mapping[str, Iterable[str]],
    at_home: Mapping[str, str] | None = None,
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns `__getattr__` and `__dir__` for the `__init__.py` of a package.

    Its modules are attributes of it, too. For type checkers and editors, the same names are
    imported under `if TYPE_CHECKING:`.

    Args:
      package: The package's `__name__`.
      homes: Module, relative to the package, to the names that it has for the package.
      at_home: Those names that the module calls otherwise, to what it calls them.

    Example:
      >>> from gradloop import lazy
      >>> get, names = lazy.attach("json", {"decoder": ["JSONDecoder"]})
      >>> get("JSONDecoder").__name__, "JSONDecoder" in names()
      ('JSONDecoder', True)
    """
    home_of = {name: home for home, names in homes.items() for name in names}
    own_names = at_home or {}

    def get(name: str) -> Any:
        if name in home_of:
            home = importlib.import_module(f".{home_of[name]}", package)
            value = getattr(home, own_names.get(name, name))
            setattr(sys.modules[package], name, value)  # the next use does not come here
            return value
        try:
            return importlib.import_module(f".{name}", package)
        except ModuleNotFoundError as error:
            if error.name != f"{package}.{name}":
                raise  # a library is missing
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return get, names
