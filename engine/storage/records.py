"""Writers: where the numbers of a run go. The interface; memory, and several writers at once.

Every record is flat: `step`, `epoch` and `kind`, then one entry a metric: a float, or a list if the
metric's result is an array. Steps count from 1 over the whole run, epochs from 0, as in Keras.
`kind` is "execution" for training logs within epochs and "epoch" for those of a whole epoch, `val_`
keys included. Files may have a `time` in each record too: when it was written, in seconds since
1970.

A writer knows how much it has written (`Writer.state`), and a run that is resumed goes on from
there (`Writer.restore`): no record is missing, and none comes twice.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from ..hooks.base import Media
from ..timing import WRITERS, part

Kind = Literal["execution", "epoch"]
Record = dict[str, Any]
TIME = "time"
RECORD_KEYS = ("step", "epoch", "kind", TIME)  # the last one with a clock alone


class Writer(abc.ABC):
    """Interface of all writers. Writing after `close` continues where it stopped."""

    @property
    def name(self) -> str:
        """Of the kind of writer: under it, its time is counted and its state is found again."""
        return type(self).__name__

    @property
    def location(self) -> str:
        """Where it writes, for people."""
        return self.name

    @abc.abstractmethod
    def write(self, step: int, logs: Mapping[str, float], *, epoch: int, kind: Kind) -> None:
        """Writes one record.

        Args:
          step: Steps completed over the whole run when the logs were taken.
          logs: Metric name to value.
          epoch: Index of the epoch, from 0.
          kind: "execution" or "epoch".

        Raises:
          ValueError: If a metric has one of the names in `RECORD_KEYS`.
        """

    def write_media(self, step: int, media: Media) -> bool:
        """Writes an image, a histogram or a text; returns whether this writer can."""
        return False

    def flush(self) -> None:  # noqa: B027 (a writer that keeps nothing back has nothing to do)
        """Hands everything to the operating system."""

    def close(self) -> None:  # noqa: B027
        """Flushes and releases files; may be called twice."""

    def state(self) -> dict[str, Any]:
        """Flushes; returns how much is written, {} if that is not known.

        A dict as `Hook.state` returns it. What it counts outlives a power cut.
        """
        self.flush()
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Drops what was written after `state` returned this; nothing if that is not known.

        Warns if something that was written then is missing.
        """


class MemoryWriter(Writer):
    """Keeps the records in the list `records`, and `(step, media)` in the list `media`."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.media: list[tuple[int, Media]] = []

    def write_media(self, step: int, media: Media) -> bool:
        """See `Writer.write_media`."""
        self.media.append((step, media))
        return True

    def write(self, step: int, logs: Mapping[str, float], *, epoch: int, kind: Kind) -> None:
        """See `Writer.write`."""
        self.records.append(make_record(step, logs, epoch, kind))

    def state(self) -> dict[str, Any]:
        """Returns how many there are."""
        return {"records": len(self.records), "media": len(self.media)}

    def restore(self, state: dict[str, Any]) -> None:
        """Drops later ones. In a new process there are none, and none are missed."""
        del self.records[state.get("records", len(self.records)) :]
        del self.media[state.get("media", len(self.media)) :]


class MultiWriter(Writer):
    """Hands each record to several writers, in order.

    Args:
      *writers: Writers of any kind; closing this one closes them.
    """

    def __init__(self, *writers: Writer) -> None:
        self.writers = writers

    def write(self, step: int, logs: Mapping[str, float], *, epoch: int, kind: Kind) -> None:
        """See `Writer.write`."""
        for writer in self.writers:
            with timed(writer):
                writer.write(step, logs, epoch=epoch, kind=kind)

    def write_media(self, step: int, media: Media) -> bool:
        """Hands it to all; returns whether one of them can write it."""
        return any([writer.write_media(step, media) for writer in self.writers])

    def flush(self) -> None:
        """See `Writer.flush`."""
        for writer in self.writers:
            with timed(writer):
                writer.flush()

    def close(self) -> None:
        """Closes all, even if one fails; that error is raised at the end."""
        with contextlib.ExitStack() as stack:
            for writer in self.writers:
                stack.callback(_close, writer)

    def state(self) -> dict[str, Any]:
        """Returns the states of all, with their names."""
        return {"writers": [[writer.name, writer.state()] for writer in self.writers]}

    def restore(self, state: dict[str, Any]) -> None:
        """Restores each writer that there was; one that is new goes on as it is."""
        saved = list(state.get("writers", ()))
        for writer in self.writers:
            index = next((i for i, (name, _) in enumerate(saved) if name == writer.name), None)
            if index is not None:
                writer.restore(saved.pop(index)[1])


def timed(writer: Writer) -> contextlib.AbstractContextManager[None]:
    """Returns a context in which a run's time counts for this writer."""
    # A MultiWriter times each of its writers itself.
    is_one = not isinstance(writer, MultiWriter)
    return part(WRITERS + writer.name) if is_one else contextlib.nullcontext()


def make_record(step: int, logs: Mapping[str, float], epoch: int, kind: Kind) -> Record:
    """Returns the record of some logs, as plain Python numbers.

    Raises:
      ValueError: If a metric has one of the names in `RECORD_KEYS`.
    """
    reserved = sorted(set(logs) & set(RECORD_KEYS))
    if reserved:
        raise ValueError(f"a metric may not be named {reserved[0]!r}: rename it where you make it.")
    values = {name: np.asarray(value).astype(float).tolist() for name, value in logs.items()}
    return {"step": int(step), "epoch": int(epoch), "kind": kind} | values


def epoch_records(records: Iterable[Record]) -> list[Record]:
    """Returns the records of whole epochs in order, the later one where an epoch occurs twice."""
    by_epoch = {record["epoch"]: record for record in records if record["kind"] == "epoch"}
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def _close(writer: Writer) -> None:
    with timed(writer):
        writer.close()
