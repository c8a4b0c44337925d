"""Passes: what a run has done with a dataset that cannot seek, to do it again when it is resumed.

A dataset of `tf.data` has no position that could be saved, and `shuffle` takes another order for
each iterator. In a new process, a deterministic dataset comes to the same place if the same
iterators are made and as many batches are taken, in the same order over all data of a run: what
is trained and validated on may be parts of one shuffled dataset.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import secrets
import warnings
import weakref
from collections.abc import Generator, Iterable, Iterator
from typing import Any, TypeVar

import tensorflow as tf

from .inputs import Inputs
from .protocols import Stateful
from .repeatable import draws_later, has_orders, what_moves, why_not_deterministic
from .strategy import is_one_cpu
from .workers.slices import distribute

_BEGIN, _END = "begin", "end"
_T = TypeVar("_T")
Replay = Generator[int, None, _T]
_FIX = (
    "use the pipeline's dataset, give it seek(epoch, step) or state() and restore(state), or set "
    "dataset.is_deterministic = True if a new process makes the same batches"
)
NO_BATCH = (
    "The dataset has no batch. Look at what filters it, and whether it has fewer examples than a "
    "batch with drop_remainder=True."
)


class Passes:
    """The iterators of a dataset, in order, with the batches that were taken from each.

    Args:
      inputs: Made of what the person passed.
      strategy: Splits each batch over the replicas.

    Attributes:
      clock: Numbers the events, of all data of a run by one clock.
    """

    def __init__(self, inputs: Inputs, strategy: tf.distribute.Strategy) -> None:
        self._inputs = inputs
        self._strategy = strategy
        self._stateful: Stateful | None = None
        if not inputs.is_of_arrays:
            _ = self.distributed  # what is wrong with it is said here
        self._events: list[str | int] = []
        self._order: list[int] = []  # the number of each
        self.clock: Iterator[int] = itertools.count()
        self._last = 0  # index of the last iterator's event

    @functools.cached_property
    def distributed(self) -> Any:
        """The dataset, split."""
        dataset = self._inputs.dataset
        # For replicas, batches are fetched ahead: the state of a dataset is not the training's.
        if isinstance(dataset, Stateful) and self._strategy.num_replicas_in_sync == 1:
            self._stateful, dataset = dataset, _without_prefetch(dataset)
        if self._inputs.is_distributed or is_one_cpu(self._strategy):
            return dataset
        return distribute(dataset, self._strategy)

    @functools.cached_property
    def _moves(self) -> bool:
        """Whether an iterator may depend on those before it."""
        is_told = getattr(self._inputs.source, "is_deterministic", None) is not None
        return is_told or has_orders(self._inputs)

    @property
    def has_any(self) -> bool:
        """Whether there has been an iterator."""
        return any(map(_is_pass, self._events))

    def begin_epoch(self) -> None:
        """Starts the workers of a PyDataset, of which a stop may have left an epoch unfinished."""
        if self._events and self._events[-1] != _END:
            self.end_epoch()
        self._inputs.on_epoch_begin()
        self._note(_BEGIN)

    def end_epoch(self) -> None:
        """Lets a PyDataset shuffle."""
        self._inputs.on_epoch_end()
        self._note(_END)

    def iterate(self, num_taken: int = 0) -> Iterator[Any]:
        """Returns a new iterator, from which batches are taken already."""
        iterator: Iterator[Any] = iter(self.distributed)
        if not self._moves:  # then only the last iterator counts
            self._events, self._order = [], []
        self._last = len(self._events)
        self._note(num_taken)
        for _ in range(num_taken):
            next(iterator, None)
        return iterator

    def _note(self, event: str | int) -> None:
        self._events.append(event)
        self._order.append(next(self.clock))

    def take(self, num_batches: int) -> None:
        """Counts batches that were taken from the last iterator."""
        self._events[self._last] = int(self._events[self._last]) + num_batches

    def state(self) -> dict[str, Any]:
        """Returns what has happened, and where."""
        data = {} if self._stateful is None else {"dataset": self._stateful.state()}
        events = {"passes": list(self._events), "order": list(self._order)}
        return data | events | {"here": self._here()}

    def _here(self) -> list[int]:
        return [_PROCESS, *map(_serial, what_moves(self._inputs.source))]

    def _is_here(self, state: dict[str, Any]) -> bool:
        """Returns whether the state is of this object in this process."""
        here = self._here()
        return 0 not in here and bool(state["here"] == here)

    def may_resume(self, state: dict[str, Any]) -> bool:
        """Returns whether the dataset comes to the place that `state` told of."""
        if self._stateful is not None or self._is_here(state):
            return True
        return why_not_deterministic(self._inputs) is None

    def resume(self, state: dict[str, Any], *, is_open: bool) -> Replay[Iterator[Any] | None]:
        """Comes to that place; returns the last iterator if its pass is open.

        Yields the number of each event before it happens: `replay_all` does them in order.

        Raises:
          ValueError: If it is open, and this process has gone on in the same dataset.
        """
        if self._stateful is not None:
            self._stateful.restore(state["dataset"])
            return self.iterate() if is_open else None
        events = state["passes"]
        order = state.get("order", range(len(events)))  # those of training alone
        if self._is_here(state):
            return (yield from self._go_on(events, order, is_open=is_open))
        return (yield from self._replay(events, order, is_open=is_open))

    def _go_on(
        self, events: list[str | int], order: Iterable[int], *, is_open: bool
    ) -> Replay[Iterator[Any] | None]:
        """Continues in the process of the run: nothing is done again but a pass without shuffle."""
        for number, event in zip(order, events, strict=True):
            yield number
            self._note(event)
        if not is_open:
            return None
        if self._inputs.gives_once or has_orders(self._inputs):
            raise ValueError(
                "The run stopped within a pass over a dataset that has another order for each "
                "iterator: its order has gone on in this process. Resume in a new process, or "
                f"{_FIX}."
            )
        why = why_not_deterministic(self._inputs)
        if why is not None:
            raise ValueError(
                "The run stopped within a pass over a dataset that may give other batches the next "
                f"time, as {why}: {_FIX}, or resume from a checkpoint of the end of an epoch."
            )
        last = next(event for event in reversed(events) if _is_pass(event))
        return self.iterate(int(last))

    def _replay(
        self, events: list[str | int], order: Iterable[int], *, is_open: bool
    ) -> Replay[Iterator[Any] | None]:
        """Does all again in a new process.

        Of an iterator before the last, one batch is taken: some datasets draw their order with it.
        A generator gives each batch once, and others draw later too: all of them are taken.
        """
        passes = [index for index, event in enumerate(events) if _is_pass(event)]
        takes_all = self._inputs.gives_once or draws_later(self._inputs.source)
        read = passes if takes_all else passes[-1:] if is_open else []
        num_read = sum(int(events[index]) for index in read)
        if num_read:
            warnings.warn(
                f"The dataset has no seek(epoch, step): {num_read} batches are read again to come "
                "to where the run was saved, which takes as long as reading them did.",
                stacklevel=4,
            )
        iterator = None
        for index, (number, event) in enumerate(zip(order, events, strict=True)):
            yield number
            if event == _BEGIN:
                self.begin_epoch()
            elif event == _END:
                self.end_epoch()
            else:
                iterator = self.iterate(int(event) if index in read else min(int(event), 1))
                self._events[self._last] = event
        return iterator if is_open else None

    def why_not_resumable(self) -> str | None:
        """Returns why a resumed run will have other batches, and the fix; None if it will not."""
        reason = None if self._stateful is not None else why_not_deterministic(self._inputs)
        return None if reason is None else f"{reason}. To change that, {_FIX}."

    def error_within_epoch(self, step: int) -> ValueError:
        """Returns the error for a run that was saved within an epoch of such a dataset."""
        reason = why_not_deterministic(self._inputs) or "it is not known how it came there"
        return ValueError(
            f"The run stopped after {step} steps of an epoch, and this dataset has no "
            f"seek(epoch, step) to continue there, and {reason}: {_FIX}, or resume from a "
            "checkpoint of the end of an epoch."
        )


def _without_prefetch(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a dataset to which tf.data adds no prefetch: its state is that of the training."""
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False
    return dataset.with_options(options)


# Of this process. Not its id, which in containers is the same each time.
_PROCESS = secrets.randbits(48)
_serials: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_counter = itertools.count(1)


def _serial(thing: Any) -> int:
    """Returns a number of an object that no other has in this process, as `id` may; 0: it has none.

    Arrays and lists have none: they do not move on.
    """
    try:
        return _serials.setdefault(thing, next(_counter))
    except TypeError:
        return 0


def replay_all(replays: Iterable[Replay[None]]) -> None:
    """Does what each data of a run did, in their order."""
    # Each says the number of what comes next, and does it when it is asked for another one.
    for _ in heapq.merge(*replays):
        pass


def _is_pass(event: str | int) -> bool:
    return isinstance(event, int)


def warn_of_early_end(step: int, length: int, *, is_asked: bool) -> None:
    """Warns that an epoch has fewer steps than a person asks for, or than its data say."""
    fix = (
        "Use dataset.repeat(), or a smaller steps_per_epoch"
        if is_asked
        else "Make the length that the data tell (__len__) that of the epoch"
    )
    warnings.warn(
        f"The data ended after {step} of {length} steps of this epoch: the next epoch starts from "
        f"its beginning. {fix}.",
        stacklevel=2,
    )
