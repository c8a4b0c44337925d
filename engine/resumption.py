"""Resumption: what a run that is resumed needs beside its variables and its progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Resumption:
    """The parts of a run by name, each a tree as `Hook.state` returns it.

    "history", "hooks" (by name), "data", "validation" (its data), "validated" (the last one's
    logs), "lasting" (names of values that are logged as they were last), "logs" (that hooks have
    not seen yet), "stop" (why the run ended), "settings" (what its bits depend on). A run in
    progress makes them when somebody asks; a checkpoint saves them, and puts back what it has.

    Attributes:
      is_saved: Whether a hook saves the run that is in progress.
      is_save_point: Whether all hooks of that run know what has happened, so that it can be saved.
    """

    def __init__(self) -> None:
        self.is_saved = self.is_save_point = False
        self._parts: dict[str, Any] = {}
        self._capture: Callable[[], dict[str, Any]] | None = None

    @property
    def may_save(self) -> bool:
        """Whether what is saved now goes on as it is: outside of a run, or at its save points."""
        return self._capture is None or self.is_save_point

    def capture(self) -> dict[str, Any]:
        """Returns all parts as they are now. Context: on the host, between executions."""
        return self._parts if self._capture is None else self._capture()

    def restore(self, parts: dict[str, Any]) -> None:
        """Puts back what `capture` returned, for the next run."""
        self._parts = parts

    def begin(self, capture: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Lets a run make the parts from now on; returns those that were restored."""
        parts, self._parts = self._parts, {}
        self._capture = capture
        return parts

    def end(self, parts: dict[str, Any]) -> None:
        """Keeps the parts of a run that ended, for one that goes on in this process."""
        self.is_saved = False
        self._capture = None
        self._parts = parts
