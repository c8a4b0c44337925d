"""KerasCallbacks: callbacks of Keras in the engine's loop."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras.src.utils import is_default

from gradloop.files import json_text

from ..storage.trees import decode, encode
from .base import Hook, HookInfo

_TRAIN_BATCH = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
_TEST_BATCH = ("on_test_batch_begin", "on_test_batch_end")


class KerasCallbacks(Hook):
    """Calls Keras's callbacks, or a person's own, as `keras.Model.fit` does.

    Callbacks that work at epochs cost nothing. If one overrides a method for batches, it is called
    for each execution, as in fit; `steps_per_execution=None` (auto) then means one step. The host
    waits for its logs: all this costs what fit's own loop costs.
    `model.stop_training` stops the run; what a callback adds to the logs is in the history.

    A checkpoint holds what training has changed in a callback's attributes, as far as they are
    numbers, strings, None, arrays, or lists, tuples and dicts of these: the patience and best
    weights of `EarlyStopping`, the best value of `ModelCheckpoint`. It holds nothing else of it.

    Args:
      callbacks: In the order of the calls.

    Raises:
      ValueError: If one is no callback.

    Example:
      >>> schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
      >>> hooks = [engine.KerasCallbacks([schedule])]
      >>> history = engine.fit(state, train_ds, engine.TrainConfig(epochs=2), hooks=hooks)
      >>> [round(rate, 3) for rate in history.history["learning_rate"]]
      [0.1, 0.05]
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        self.callbacks = list(callbacks)
        for callback in self.callbacks:
            if not isinstance(callback, keras.callbacks.Callback):
                raise ValueError(
                    f"{callback!r} is no callback: pass instances of keras.callbacks.Callback; "
                    "the engine's own hooks go into hooks=[...] themselves."
                )
        self.needs_batches = any(_overrides(c, _TRAIN_BATCH) for c in self.callbacks)
        self.needs_eval_batches = any(_overrides(c, _TEST_BATCH) for c in self.callbacks)
        self.needs_exact_logs = self.needs_batches or self.needs_eval_batches
        self._steps_per_execution: int | None = None
        self._list: Any = None
        self._epoch_logs = _EpochLogs()
        self._num_before = self._begin = 0
        self._ends_after_one = False  # an evaluation, whose begin a callback has stopped
        self._at_begin: list[dict[str, bytes]] = []  # digests of the attributes

    def on_train_begin(self, info: HookInfo) -> None:
        """Tells the callbacks of the model, and begins at the epoch that one asks for."""
        model, progress = info.state.model, info.progress
        self._epoch_logs.logs = {}  # those of an earlier run
        self._make_list(info)
        model.stop_training = False
        self._list.on_train_begin()
        self._at_begin = [_digests(callback) for callback in self._all]
        # How BackupAndRestore tells fit where to continue.
        if model._initial_epoch:
            progress.epoch = progress.num_epochs_completed = model._initial_epoch
        self._honour_stop(info)

    @property
    def _all(self) -> list[keras.callbacks.Callback]:
        return [*self.callbacks, self._epoch_logs]

    def state(self) -> dict[str, Any]:
        """Returns the attributes that training has changed, callback by callback."""
        states = []
        for callback, before in zip(self._all, self._at_begin, strict=True):
            changed = {
                name: decode(tree, [array.copy() for array in arrays])
                for name, tree, arrays in _attributes(callback)
                if before.get(name) != _digest(tree, arrays)
            }
            states.append([type(callback).__name__, changed])
        return {"callbacks": states}

    def restore(self, state: dict[str, Any]) -> None:
        """Puts the attributes back; a callback that is new begins anew."""
        saved = list(state["callbacks"])
        for callback in self._all:
            name = type(callback).__name__
            index = next((i for i, (other, _) in enumerate(saved) if other == name), None)
            if index is not None:
                _set_attributes(callback, saved.pop(index)[1])

    def on_epoch_begin(self, info: HookInfo) -> None:
        """Calls `on_epoch_begin`."""
        self._num_before = info.progress.num_steps_completed - info.progress.step
        self._list.on_epoch_begin(info.progress.epoch)

    def max_steps(self, num_steps_completed: int) -> int | None:
        """Gives each step an execution, if a callback needs batches and nobody set their size."""
        return 1 if self.needs_batches and self._steps_per_execution is None else None

    def max_eval_steps(self, step: int) -> int | None:
        """Likewise in an evaluation."""
        is_watched = self.needs_eval_batches or self._ends_after_one
        return 1 if is_watched and self._steps_per_execution is None else None

    @contextlib.contextmanager
    def around_eval_execution(self, step: int) -> Iterator[None]:
        """Calls `on_test_batch_begin` if a callback needs batches."""
        if self.needs_eval_batches:
            self._begin = step
            self._list.on_test_batch_begin(step)
        yield

    def on_eval_execution_end(self, info: HookInfo) -> None:
        """Calls `on_test_batch_end` if a callback needs batches."""
        if self.needs_eval_batches:
            end = self._begin + (self._steps_per_execution or 1) - 1
            self._list.on_test_batch_end(end, dict(info.logs))
        info.ends_evaluation |= info.state.model.stop_evaluating

    @contextlib.contextmanager
    def around_execution(self, num_steps_completed: int) -> Iterator[None]:
        """Calls `on_train_batch_begin` if a callback needs batches."""
        if self.needs_batches:
            self._begin = num_steps_completed - self._num_before
            self._list.on_train_batch_begin(self._begin)
        yield

    def on_execution_end(self, info: HookInfo) -> None:
        """Calls `on_train_batch_end` if a callback needs batches."""
        if self.needs_batches:
            end = self._begin + (self._steps_per_execution or 1) - 1  # as fit counts
            self._list.on_train_batch_end(end, dict(info.logs))
        self._honour_stop(info)

    def on_epoch_end(self, info: HookInfo) -> None:
        """Calls `on_epoch_end`, and keeps what callbacks add to the logs."""
        self._list.on_epoch_end(info.progress.epoch, dict(info.logs))
        for name, value in self._epoch_logs.logs.items():
            if name not in info.logs:
                info.add(name, value)
        self._honour_stop(info)

    def on_eval_begin(self, info: HookInfo) -> None:
        """Calls `on_test_begin`."""
        if not info.eval_name:  # no validation, which has the list of its training
            self._make_list(info)
        info.state.model.stop_evaluating = False
        self._list.on_test_begin()
        self._ends_after_one = info.state.model.stop_evaluating

    def on_eval_end(self, info: HookInfo) -> None:
        """Calls `on_test_end`."""
        self._list.on_test_end(dict(info.logs))

    def on_predict_begin(self, info: HookInfo) -> None:
        """Calls `on_predict_begin`."""
        self._make_list(info)
        info.state.model.stop_predicting = False
        self._list.on_predict_begin()

    def on_predict_batch_begin(self, info: HookInfo) -> None:
        """Calls `on_predict_batch_begin`."""
        self._list.on_predict_batch_begin(info.predict_step)

    def on_predict_batch_end(self, info: HookInfo) -> None:
        """Calls `on_predict_batch_end` with the outputs."""
        self._list.on_predict_batch_end(info.predict_step, {"outputs": info.outputs})
        if info.state.model.stop_predicting:
            info.request_stop("a Keras callback set model.stop_predicting")

    def on_predict_end(self, info: HookInfo) -> None:
        """Calls `on_predict_end`."""
        self._list.on_predict_end()

    def on_train_end(self, info: HookInfo) -> None:
        """Calls `on_train_end`, unless the run failed."""
        if not info.has_failed:
            self._list.on_train_end(dict(self._epoch_logs.logs) or None)

    def _make_list(self, info: HookInfo) -> None:
        self._steps_per_execution = info.steps_per_execution
        self._list = keras.callbacks.CallbackList(
            self._all,
            model=info.state.model,
            epochs=info.progress.num_epochs,
            steps=info.progress.steps_per_epoch,
            verbose=0,
        )

    def _honour_stop(self, info: HookInfo) -> None:
        if getattr(info.state.model, "stop_training", False):
            info.request_stop("a Keras callback set model.stop_training")


class _EpochLogs(keras.callbacks.Callback):  # type: ignore[misc]
    """The last callback of all: keeps the logs with what the others have added."""

    def __init__(self) -> None:
        super().__init__()
        self.logs: dict[str, Any] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.logs = dict(logs or {})


def _overrides(callback: keras.callbacks.Callback, methods: Sequence[str]) -> bool:
    return any(not is_default(getattr(callback, method)) for method in methods)


def _attributes(callback: keras.callbacks.Callback) -> Iterator[tuple[str, Any, list[np.ndarray]]]:
    """Yields name, tree and arrays of each attribute that a checkpoint can hold."""
    # Keras sets `min_delta` anew once it knows the direction, and would do it twice: no settings.
    kinds = [kind for kind in type(callback).__mro__ if kind.__module__.startswith("keras.")]
    settings = {name for kind in kinds for name in inspect.signature(kind).parameters}
    for name, value in vars(callback).items():
        arrays: list[np.ndarray] = []
        with contextlib.suppress(TypeError):  # No checkpoint can hold it.
            if name not in settings:
                yield name, encode(value, arrays), arrays


def _digests(callback: keras.callbacks.Callback) -> dict[str, bytes]:
    return {name: _digest(tree, arrays) for name, tree, arrays in _attributes(callback)}


def _digest(tree: Any, arrays: Sequence[np.ndarray]) -> bytes:
    sha256 = hashlib.sha256(json_text(tree).encode())
    for array in arrays:
        sha256.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return sha256.digest()


def _set_attributes(callback: keras.callbacks.Callback, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        present = getattr(callback, name, None)
        if isinstance(present, dict) and isinstance(value, dict):
            present.clear()  # It may be of a kind of its own.
            present.update(value)
        else:
            # A checkpoint makes lists of tuples.
            setattr(callback, name, tuple(value) if isinstance(present, tuple) else value)
