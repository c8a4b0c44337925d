"""KerasCallbacks: callbacks of Keras in the engine's loop."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras.src.utils import is_default

from .base import Hook, HookInfo
from .callback_attributes import Held, attributes_of, copies_of, go_back, set_attribute

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
    For the way back to it in a rollback, these attributes are copied when training begins; one of
    more than 16 MiB is not, and keeps in a rollback what the checkpoint does not hold of it.

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
        self._epoch_logs = _EpochLogs()
        self._calls: list[_Call] = []  # a training, an evaluation within it, ...
        # None: no training has begun.
        self._at_begin: list[dict[str, Held | None] | None] = [None for _ in self._all]
        self._restored: list[set[str]] = [set() for _ in self._all]  # names of attributes

    def on_train_begin(self, info: HookInfo) -> None:
        """Tells the callbacks of the model, and begins at the epoch that one asks for."""
        model, progress = info.state.model, info.progress
        self._epoch_logs.logs = {}  # those of an earlier run
        self._begin(info, progress.num_epochs, progress.steps_per_epoch)
        self._list.on_train_begin()
        self._at_begin = [copies_of(callback) for callback in self._all]
        self._restored = [set() for _ in self._all]
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
        parts = zip(self._all, self._at_begin, self._restored, strict=True)
        for callback, before, restored in parts:
            # What was restored has changed, also where the callback had it when training began.
            changed = {
                name: held.value()
                for name, held in attributes_of(callback)
                if name in restored or not held.equals((before or {}).get(name))
            }
            states.append([type(callback).__name__, changed])
        return {"callbacks": states}

    def restore(self, state: dict[str, Any]) -> None:
        """Puts the attributes back; a callback that is new begins anew."""
        saved = list(state["callbacks"])
        parts = zip(self._all, self._at_begin, self._restored, strict=True)
        for callback, before, restored in parts:
            if before is not None:
                go_back(callback, before)
            name = type(callback).__name__
            index = next((i for i, (other, _) in enumerate(saved) if other == name), None)
            for attribute, value in ({} if index is None else saved.pop(index)[1]).items():
                set_attribute(callback, attribute, value)
                restored.add(attribute)

    def on_epoch_begin(self, info: HookInfo) -> None:
        """Calls `on_epoch_begin`."""
        self._call.num_before = info.progress.num_steps_completed - info.progress.step
        self._list.on_epoch_begin(info.progress.epoch)

    def max_steps(self, num_steps_completed: int) -> int | None:
        """Gives each step an execution, if a callback needs batches and nobody set their size.

        As in fit, one execution follows a stop that is asked for before it; not with several
        workers, whose executions are alike, and of which one alone may have asked.
        """
        info = self._call.info
        stops = info.state.model.stop_training and info.state.peers.is_alone
        is_single = self.needs_batches or stops
        return 1 if is_single and info.steps_per_execution is None else None

    def max_eval_steps(self, step: int) -> int | None:
        """Likewise in an evaluation."""
        info = self._call.info
        stops = info.state.model.stop_evaluating and info.state.peers.is_alone
        is_single = self.needs_eval_batches or stops
        return 1 if is_single and info.steps_per_execution is None else None

    @contextlib.contextmanager
    def around_eval_execution(self, step: int) -> Iterator[None]:
        """Calls `on_test_batch_begin` if a callback needs batches."""
        if self.needs_eval_batches:
            self._call.first = step
            self._list.on_test_batch_begin(step)
        yield

    def on_eval_execution_end(self, info: HookInfo) -> None:
        """Calls `on_test_batch_end` if a callback needs batches."""
        if self.needs_eval_batches:
            self._list.on_test_batch_end(self._call.last, dict(info.logs))
        info.ends_evaluation |= info.state.model.stop_evaluating

    @contextlib.contextmanager
    def around_execution(self, num_steps_completed: int) -> Iterator[None]:
        """Calls `on_train_batch_begin` if a callback needs batches."""
        if self.needs_batches:
            self._call.first = num_steps_completed - self._call.num_before
            self._list.on_train_batch_begin(self._call.first)
        yield

    def on_execution_end(self, info: HookInfo) -> None:
        """Calls `on_train_batch_end` if a callback needs batches."""
        if self.needs_batches:
            self._list.on_train_batch_end(self._call.last, dict(info.logs))
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
            self._begin(info, 1, info.num_steps)
        self._list.on_test_begin()

    def on_eval_end(self, info: HookInfo) -> None:
        """Calls `on_test_end`."""
        self._list.on_test_end(dict(info.logs))
        if not info.eval_name:
            self._end(info)

    def on_predict_begin(self, info: HookInfo) -> None:
        """Calls `on_predict_begin`."""
        self._begin(info, 1, info.num_steps)
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
        self._end(info)

    def on_train_end(self, info: HookInfo) -> None:
        """Calls `on_train_end`, unless the run failed."""
        try:
            if not info.has_failed:
                self._list.on_train_end(dict(self._epoch_logs.logs) or None)
        finally:
            self._end(info)

    @property
    def _call(self) -> _Call:
        """The innermost call that is going on."""
        if self._calls[-1].info.has_failed:  # and a hook went on
            self._end(self._calls[-1].info)
        return self._calls[-1]

    @property
    def _list(self) -> Any:
        return self._call.callbacks

    def _begin(self, info: HookInfo, epochs: int, steps: int | None) -> None:
        self._calls = [call for call in self._calls if not call.info.has_failed]
        callbacks = keras.callbacks.CallbackList(
            self._all, model=info.state.model, epochs=epochs, steps=steps, verbose=0
        )
        self._calls.append(_Call(info, callbacks))

    def _end(self, info: HookInfo) -> None:
        """Gives the callbacks back to the call in which this one was made."""
        self._calls = [
            call for call in self._calls if call.info is not info and not call.info.has_failed
        ]
        if self._calls:
            model = self._call.info.state.model
            for callback in self._all:
                if callback.model is not model:  # else TensorBoard would begin files anew
                    callback.set_model(model)
                callback.set_params(self._list.params)

    def _honour_stop(self, info: HookInfo) -> None:
        if getattr(info.state.model, "stop_training", False):
            info.request_stop("a Keras callback set model.stop_training")


@dataclasses.dataclass
class _Call:
    """A call of `fit`, `evaluate` or `predict` that the callbacks serve."""

    info: HookInfo
    callbacks: Any
    num_before: int = 0  # steps before the epoch
    first: int = 0  # step of the execution

    @property
    def last(self) -> int:
        """The last step of the execution, as fit counts."""
        return self.first + (self.info.steps_per_execution or 1) - 1


class _EpochLogs(keras.callbacks.Callback):  # type: ignore[misc]
    """The last callback of all: keeps the logs with what the others have added."""

    def __init__(self) -> None:
        super().__init__()
        self.logs: dict[str, Any] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.logs = dict(logs or {})


def _overrides(callback: keras.callbacks.Callback, methods: Sequence[str]) -> bool:
    return any(not is_default(getattr(callback, method)) for method in methods)
