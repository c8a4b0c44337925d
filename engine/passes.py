"""Passes: what a run has done with a dataset that cannot seek, to do it again when it is resumed.

A dataset of `tf.data` has no position that could be saved, and `shuffle` takes another order for
each iterator. In a new process, a deterministic dataset comes to the same place if the same
iterators are made and as many batches are taken.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from .inputs import Inputs
from .protocols import Stateful
from .strategy import is_one_cpu
from .traced_step import operations_of
from .workers.slices import distribute

_BEGIN, _END = "begin", "end"
# Stateful operations that give the same batches in a new process. Not `ShuffleDataset`: its seed is
# an input, which a graph does not show.
_HARMLESS = re.compile(
    r"(?!Shuffle|Random|Generator)\w*Dataset(V\d+)?|\w*PartitionedCall|If|While|Case|Assert|PrintV2"
    r"|VarHandleOp|ReadVariableOp|\w*Table(Find|Size)?(V\d+)?|ReadFile|MatchingFiles"
)
_DEFAULT_SEED = 87654321  # of TensorFlow's operations, where no global seed is set
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
    """

    def __init__(self, inputs: Inputs, strategy: tf.distribute.Strategy) -> None:
        self._inputs = inputs
        self._strategy = strategy
        self._stateful: Stateful | None = None
        if not inputs.is_of_arrays:
            _ = self.distributed  # what is wrong with it is said here
        self._events: list[str | int] = []
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

    def begin_epoch(self) -> None:
        """Starts the workers of a PyDataset."""
        self._inputs.on_epoch_begin()
        self._events.append(_BEGIN)

    def end_epoch(self) -> None:
        """Lets a PyDataset shuffle."""
        self._inputs.on_epoch_end()
        self._events.append(_END)

    def iterate(self, num_taken: int = 0) -> Iterator[Any]:
        """Returns a new iterator, from which batches are taken already."""
        iterator: Iterator[Any] = iter(self.distributed)
        self._last = len(self._events)
        self._events.append(num_taken)
        for _ in range(num_taken):
            next(iterator, None)
        return iterator

    def take(self, num_batches: int) -> None:
        """Counts batches that were taken from the last iterator."""
        self._events[self._last] = int(self._events[self._last]) + num_batches

    def state(self) -> dict[str, Any]:
        """Returns what has happened, and where."""
        data = {} if self._stateful is None else {"dataset": self._stateful.state()}
        return data | {"passes": list(self._events), "here": self._here()}

    def _here(self) -> list[int]:
        return [os.getpid(), _serial(self._inputs.source)]

    def _is_here(self, state: dict[str, Any]) -> bool:
        """Returns whether the state is of this object in this process."""
        here = self._here()
        return here[1] > 0 and bool(state["here"] == here)

    def may_resume(self, state: dict[str, Any]) -> bool:
        """Returns whether the dataset comes to the place that `state` told of."""
        if self._stateful is not None or self._is_here(state):
            return True
        return why_not_deterministic(self._inputs) is None

    def resume(self, state: dict[str, Any], *, is_open: bool) -> Iterator[Any] | None:
        """Comes to that place; returns the last iterator if its pass is open.

        Raises:
          ValueError: If it is open, and this process has gone on in the same dataset.
        """
        if self._stateful is not None:
            self._stateful.restore(state["dataset"])
            return self.iterate() if is_open else None
        if self._is_here(state):
            return self._go_on(state["passes"], is_open=is_open)
        return self._replay(state["passes"], is_open=is_open)

    def _go_on(self, events: list[str | int], *, is_open: bool) -> Iterator[Any] | None:
        """Continues in the process of the run: nothing is done again but a pass without shuffle."""
        self._events = list(events)
        if not is_open:
            return None
        if self._inputs.gives_once or _has_orders(self._inputs):
            raise ValueError(
                "The run stopped within a pass over a dataset that has another order for each "
                "iterator: its order has gone on in this process. Resume in a new process, or "
                f"{_FIX}."
            )
        last = next(event for event in reversed(events) if _is_pass(event))
        return self.iterate(int(last))

    def _replay(self, events: list[str | int], *, is_open: bool) -> Iterator[Any] | None:
        """Does all again in a new process.

        Of an iterator before the last, one batch is taken: some datasets draw their order with it.
        A generator gives each batch once, so that all of them are taken.
        """
        passes = [index for index, event in enumerate(events) if _is_pass(event)]
        num_read = int(events[passes[-1]]) if is_open else 0
        if num_read:
            warnings.warn(
                f"The dataset has no seek(epoch, step): {num_read} batches are read again to come "
                "to where the run was saved, which takes as long as reading them did.",
                stacklevel=4,
            )
        iterator = None
        for index, event in enumerate(events):
            if event == _BEGIN:
                self.begin_epoch()
            elif event == _END:
                self.end_epoch()
            else:
                is_whole = (is_open and index == passes[-1]) or self._inputs.gives_once
                iterator = self.iterate(int(event) if is_whole else min(int(event), 1))
                self._events[self._last] = event
        return iterator if is_open else None

    def check_resumable(self) -> None:
        """Warns at the start of a run that is saved, if a resumed one will have other batches."""
        reason = None if self._stateful is not None else why_not_deterministic(self._inputs)
        if reason is not None:
            warnings.warn(
                "This run is saved, but cannot be resumed exactly, and not within an epoch: "
                f"{reason}. To change that, {_FIX}.",
                stacklevel=5,
            )

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


def _is_pass(event: str | int) -> bool:
    return isinstance(event, int)


def why_not_deterministic(inputs: Inputs) -> str | None:
    """Returns why a new process makes other batches of the same inputs; None if it makes the same.

    A person states it by an attribute `is_deterministic`; of arrays and `tf.data` the engine looks
    at seeds and operations.
    """
    told = getattr(inputs.source, "is_deterministic", None)
    if told is not None:
        return None if told else "is_deterministic is False"
    if inputs.is_of_arrays:
        has_seed = tf.compat.v1.get_seed(1)[0] != _DEFAULT_SEED
        return None if has_seed or not inputs.shuffles else "its arrays are shuffled without a seed"
    if not isinstance(inputs.source, tf.data.Dataset):
        return f"what a {type(inputs.source).__name__} gives in a new process is not known"
    return next(filter(None, map(_why_not, _all_of(inputs.source))), None)


def _has_orders(inputs: Inputs) -> bool:
    is_tf_data = isinstance(inputs.source, tf.data.Dataset)
    if not is_tf_data:
        return inputs.shuffles or not inputs.is_of_arrays
    return any(hasattr(dataset, "_seed") for dataset in _all_of(inputs.source))


def _all_of(dataset: tf.data.Dataset) -> Iterator[tf.data.Dataset]:
    yield dataset
    for below in dataset._inputs():
        yield from _all_of(below)


def _why_not(dataset: tf.data.Dataset) -> str | None:
    if dataset.options().deterministic is False:
        return "its options say deterministic=False"
    seeds = getattr(dataset, "_seed", None), getattr(dataset, "_seed2", None)
    if all(seed is not None and int(seed) == 0 for seed in seeds):
        return "it shuffles without a seed"
    for function in dataset._functions():
        for operation in operations_of(function.function.graph):
            is_stateful = operation.op_def is not None and operation.op_def.is_stateful
            if is_stateful and not _HARMLESS.fullmatch(operation.type):
                return f"it has the operation {operation.type}, which may give others"
    return None


def warn_of_early_end(step: int, asked: int) -> None:
    """Warns that an epoch has fewer steps than it was asked for."""
    warnings.warn(
        f"The data ended after {step} of {asked} steps of this epoch: the next epoch starts from "
        "its beginning. Use dataset.repeat(), or a smaller steps_per_epoch.",
        stacklevel=2,
    )
