"""Wrong usage: a hint at the nearest legal value; and exit codes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Exit code of every command of the project for wrong usage.
EXIT_USAGE = 2
# Of a process that `engine.Watchdog` ended, because a step or a batch did not come in time.
EXIT_HANG = 70
# Of one of several workers whose peers are gone, or did not come in time: all must start again.
EXIT_PEERS_LOST = 75
_MIN_BEGINNING = 3  # letters with which a word begins, and that hint at it


def did_you_mean(value: object, legal: Iterable[object]) -> str:
    """Returns ` Did you mean 'x'?`, or an empty string if no legal value is close.

    Args:
      value: What the person wrote; case is ignored.
      legal: All legal values.

    Example:
      >>> did_you_mean("CNM", ["cnn", "dense"])
      " Did you mean 'cnn'?"
    """
    by_lower = {str(word).lower(): str(word) for word in legal}
    text = str(value).lower()
    close = difflib.get_close_matches(text, by_lower, n=1) or [
        word for word in by_lower if len(text) >= _MIN_BEGINNING and word.startswith(text)
    ]
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""
