"""Consensus: what workers must do alike, though one of them alone has asked for it.

A stop that a hook, a signal or a clock requests on one worker waits until the next exchange, which
makes it effective on all of them. The sizes of executions are those that the chief has measured.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..hooks.info import HookInfo, StopRequest
from ..planner import Planner
from ..timing import WORKERS, Timing
from .peers import Peers

# So that a message has room for them: a character takes up to six bytes in JSON.
_MAX_REASON, _MAX_REQUESTS = 100, 6


class Consensus:
    """The exchange between the workers of one call of `fit`, `evaluate` or `predict`.

    Args:
      peers: The workers.
      info: Its requests of stops wait for the exchange, if there are several workers.
    """

    def __init__(self, peers: Peers, info: HookInfo) -> None:
        self._peers = peers
        self._info = info
        self._planner: Planner | None = None
        info.defers_stops = not peers.is_alone

    @contextlib.contextmanager
    def on_sizes(self, planner: Planner) -> Iterator[None]:
        """Has all workers take the chief's sizes of executions while the block runs."""
        before, self._planner = self._planner, planner
        planner.follows = not self._peers.is_alone
        try:
            yield
        finally:
            self._planner = before

    def reach(self, timing: Timing) -> None:
        """Lets all workers know what each has asked for.

        Context: on the host, at the same moment on all workers.

        Args:
          timing: Takes the time of the wait.

        Raises:
          RuntimeError: If some workers go back to a checkpoint and others do not.
        """
        if self._peers.is_alone:
            return
        requests = [request.to_message(_MAX_REASON) for request in self._info.take_requests()]
        own = {
            "stops": requests[:_MAX_REQUESTS],
            "sizes": None if self._planner is None else self._planner.measured,
            "goes_back": self._info.rollback is not None,
            "ends_evaluation": self._info.ends_evaluation,
        }
        with timing.part(WORKERS):
            messages = self._peers.share(own)
        if self._planner is not None:
            self._planner.take(messages[0]["sizes"])
        self._info.ends_evaluation = any(message["ends_evaluation"] for message in messages)
        self._check_rollbacks([message["goes_back"] for message in messages])
        for worker, message in enumerate(messages):
            for stop in message["stops"]:
                request = StopRequest.of_message(stop)
                if stop not in requests:
                    request = request._replace(reason=f"worker {worker}: {request.reason}")
                self._info.apply(request)

    def _check_rollbacks(self, goes_back: list[bool]) -> None:
        if any(goes_back) and not all(goes_back):
            workers = [worker for worker, one in enumerate(goes_back) if one]
            raise RuntimeError(
                f"The workers {workers} of {self._peers.num_workers} go back to a checkpoint, and "
                "the others do not: hooks must request a rollback on all workers alike. Decide it "
                "by what is alike on them, such as the logs."
            )
