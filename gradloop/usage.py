"""What a person gets for a value that is not legal: the nearest legal one, and the exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Exit code of every command of the project for wrong usage.
EXIT_USAGE = 2


def did_you_mean(value: object, legal: Iterable[object]) -> str:
    """Returns ` Did you mean 'x'?`, or nothing if no legal word is near.

    Args:
      value: What the person wrote; upper and lower case are the same.
      legal: The words that would have been right.

    Example:
      >>> did_you_mean("CNM", ["cnn", "dense"])
      " Did you mean 'cnn'?"
    """
    by_lower = {str(word).lower(): str(word) for word in legal}
    close = difflib.get_close_matches(str(value).lower(), by_lower, n=1)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""
