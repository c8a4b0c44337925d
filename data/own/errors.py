"""What is wrong with a file of one's own, in one line with its name and the fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class FileError(ValueError):
    """A file that cannot be read as a dataset."""


def unreadable(path: Path | str, error: object) -> FileError:
    """Returns the error for a file that the system, or its format, does not let be read."""
    reason = getattr(error, "strerror", None) or error
    first_line = next(iter(str(reason).strip().splitlines()), type(error).__name__)
    return FileError(f"{path} cannot be read: {first_line.rstrip('.')}.")


def shown(names: Any, limit: int = 12) -> str:
    """Returns names between commas, the first ones if there are many."""
    names = [str(name) for name in names]
    more = f", ... ({len(names)} in all)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
