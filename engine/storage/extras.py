"""Libraries that come with the extras of setup.cfg and may be missing."""

from __future__ import annotations

import importlib.util


class MissingExtra(ImportError):
    """A package is missing that comes with one of the project's extras."""


def require_extra(module: str, extra: str) -> None:
    """Raises MissingExtra, with the fix, if `module` is not installed."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtra(
            f"{module} is not installed: run `pip install gradloop[{extra}]`, or do without it."
        )
