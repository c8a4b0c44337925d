"""Trackers: writers into a service that keeps and compares runs. What they have in common."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradloop.files import json_text, make_directory

from .records import Kind, Writer

PROJECT = "gradloop"
# After an error it is not tried again for so long: each try may wait for a network.
RETRY_SECS = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunDescription:
    """What a tracker shows of a run beside its numbers.

    Attributes:
      name: Of the run; None: the tracker invents one.
      config: Its settings: what JSON can hold, or a dataclass of it.
      tags: Words to find it by.
    """

    name: str | None = None
    config: Any = dataclasses.field(default_factory=dict)
    tags: Sequence[str] = ()


class Tracker(Writer):
    """Writes metrics by step; `epoch/loss` of an epoch, `execution/loss` within it.

    The run begins with the first record, and is open until `end`: other writers are done when they
    are closed, and a run has its status and its test metrics later. A run that is resumed from a
    checkpoint goes on as the same run: its id is in the checkpoint. Records between a checkpoint
    and a kill come twice, with the same values. Whatever the library raises becomes an OSError, as
    with files.

    Args:
      directory: Where the library keeps its files; it is created.
      description: What is shown of the run.

    Attributes:
      id: Of the run; None until there is one.

    Raises:
      MissingExtra: If the library is not installed.
    """

    def __init__(self, directory: Path, description: RunDescription) -> None:
        self.directory = make_directory(directory)
        self.description = description
        self.id: str | None = None
        self._not_before = 0.0

    @property
    def location(self) -> str:
        """See `Writer.location`."""
        return f"{self.name.removesuffix('Writer')}, run {self.id}"

    def write(self, step: int, logs: Mapping[str, float], *, epoch: int, kind: Kind) -> None:
        """See `Writer.write`: arrays are left out, of which trackers draw no curve."""
        values = {f"{kind}/{k}": float(v) for k, v in logs.items() if np.ndim(v) == 0}
        with self._reached():
            self._open()
            self._log(step, epoch, values)

    def state(self) -> dict[str, Any]:
        """Returns the id of the run, once there is one."""
        self.flush()
        return {} if self.id is None else {"id": self.id}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on with the run of that id."""
        self.id = state.get("id", self.id)

    def end(self, status: str, values: Mapping[str, Any] | None = None) -> None:
        """Ends the run; without a run it does nothing.

        Args:
          status: A word of summary.json, such as "completed", "paused" or "failed".
          values: What was found after the training, name to number.

        Raises:
          OSError: If the tracker cannot be reached.
        """
        self._not_before = 0.0
        if self.id is not None:
            with self._reached():
                self._open()
                self._end(status, dict(values or {}))

    @abc.abstractmethod
    def _open(self) -> None:
        """Begins the run, or goes on with that of `id`, unless it is open."""

    @abc.abstractmethod
    def _log(self, step: int, epoch: int, values: dict[str, float]) -> None:
        """Writes values of an open run."""

    @abc.abstractmethod
    def _end(self, status: str, values: dict[str, Any]) -> None:
        """Ends an open run."""

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        if time.monotonic() < self._not_before:
            raise OSError("it could not be reached a short time ago")
        try:
            yield
        except Exception as error:  # of the library, of HTTP, of the system
            self._not_before = time.monotonic() + RETRY_SECS
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise OSError(lines[0]) from error


def flat(config: Any) -> dict[str, str]:
    """Returns settings as texts, those of an inner mapping by `outer.inner`.

    Example:
      >>> from gradloop.engine.storage.trackers import flat
      >>> flat({"epochs": 3, "model_args": {"units": 256}})
      {'epochs': '3', 'model_args.units': '256'}
    """
    texts: dict[str, str] = {}
    for name, value in plain(config).items():
        if isinstance(value, dict):
            texts |= {f"{name}.{inner}": text for inner, text in flat(value).items()}
        else:
            texts[name] = value if isinstance(value, str) else json_text(value)
    return texts


def plain(config: Any) -> dict[str, Any]:
    """Returns settings as a dict of what JSON can hold."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        config = dataclasses.asdict(config)
    return dict(config)
