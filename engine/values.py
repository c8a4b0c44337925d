"""Values of settings as Python's own: what NumPy, paths and flags hold, and how to write it."""

from __future__ import annotations

import os
import sys
from typing import Any


def as_python(value: Any, legal_types: tuple[type, ...]) -> Any:
    """Returns NumPy's scalars, paths and tuples as Python's own, where these are legal.

    Args:
      value: What a person passed.
      legal_types: Of the setting.
    """
    if list in legal_types and isinstance(value, list | tuple):
        return [as_python(one, (int,)) for one in value]
    if str in legal_types and isinstance(value, os.PathLike):
        return os.fspath(value)
    # Where there is a value of NumPy's, NumPy has been imported.
    numpy = sys.modules.get("numpy")
    return value.item() if numpy is not None and isinstance(value, numpy.generic) else value


def whole_number_hint(value: Any) -> str:
    """Returns ` Write 3.` for 3.0 and "3", and an empty string for what is no whole number."""
    try:
        is_whole = not isinstance(value, bool) and float(value) == int(float(value))
    except (TypeError, ValueError, OverflowError):
        return ""
    return f" Write {int(float(value))}." if is_whole else ""
