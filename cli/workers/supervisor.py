"""Watches worker processes: one that dies ends all, and all are started again."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable

from gradloop import signals
from gradloop.usage import EXIT_PEERS_LOST, EXIT_USAGE

from .processes import Workers

_POLL_SECS = 0.05
# How long the others may take to end by themselves after the first that has failed.
SETTLE_SECS = 15.0
# Likewise, after one that was interrupted: the chief may be saving.
_SAVING_SECS = 120.0
_INTERRUPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
# Another start would end in the same way, or somebody wants none.
_NEVER_RESTARTED = (0, EXIT_USAGE, *_INTERRUPTED)


def supervise(
    start: Callable[[int], Workers],
    *,
    max_restarts: int,
    may_restart: Callable[[], bool],
    say: Callable[[str], object],
) -> int:
    """Starts workers, and again when one has died, until they end or are interrupted.

    SIGINT or SIGTERM is passed to all of them, once and as SIGINT; a second one kills them, and
    ends this process.

    Args:
      start: Starts all; takes how many starts there were before.
      max_restarts: How often they are started again, at most.
      may_restart: Called after a failure: whether another start can help.
      say: Shows a line.

    Returns:
      The exit code: see `worst`. If a signal came and they were not complete, 130 or 143.
    """
    num_restarts = 0
    with signals.listening(signals.note):
        while True:
            workers = start(num_restarts)
            with signals.ending_with(workers.kill):
                _watch(workers)
            code = worst(ended for _, ended in workers.ended)
            if code in _NEVER_RESTARTED or signals.number() is not None:
                return 128 + (signals.number() or code - 128) if code else 0
            _describe_end(workers, say)
            if num_restarts == max_restarts or not may_restart():
                return code
            num_restarts += 1
            say(f"all workers start again (restart {num_restarts} of {max_restarts})")


def worst(codes: Iterable[int]) -> int:
    """Returns the exit code of several workers together.

    Args:
      codes: In the order in which they ended; minus the number of a signal that killed one.

    Returns:
      The first that is neither 0 nor `EXIT_PEERS_LOST`, then that one, then 0. 128 plus the number
      of a signal.

    Example:
      >>> worst([0, 75, -9, 1])
      137
    """
    found = [128 - code if code < 0 else code for code in codes]
    own = [code for code in found if code not in (0, EXIT_PEERS_LOST)]
    return own[0] if own else max(found, default=0)


def _watch(workers: Workers) -> None:
    """Waits until all have ended, and sees to it that they do once one has failed."""
    has_passed_on, limit = False, None
    while workers.poll():
        number = signals.number()
        if number is not None and not has_passed_on:
            has_passed_on = True
            # Not SIGTERM: TensorFlow swallows it while the workers come together.
            workers.send(signal.SIGINT)
        failed = [code for _, code in workers.ended if code != 0]
        if failed and limit is None:
            limit = time.monotonic() + _patience(failed[0])
        if limit is not None and time.monotonic() > limit:
            workers.kill()
        time.sleep(_POLL_SECS)
    workers.close()


def _patience(code: int) -> float:
    """Returns for how many seconds the others may end by themselves."""
    if code < 0:
        return 0.0  # killed: their next exchange with it fails, or never ends
    return _SAVING_SECS if code in _INTERRUPTED else SETTLE_SECS


def _describe_end(workers: Workers, say: Callable[[str], object]) -> None:
    """Says which worker died of what, with the last lines of its log."""
    failed = [(index, code) for index, code in workers.ended if code != 0]
    index, code = next(((i, c) for i, c in failed if c != EXIT_PEERS_LOST), failed[0])
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    lines = workers.last_lines(index)
    where = f"; the last lines of {workers.log(index)}:" if lines else ""
    say("\n  ".join([f"worker {index} {how}{where}", *lines]))
