"""compare_with_fit: trains a model twice, with the engine and with fit, bit against bit."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import loop
from ..arguments import check_config, check_function, check_state
from ..config import TrainConfig
from ..hooks.base import Hook, LambdaHook
from ..options import ConfigError, show
from ..protocols import Seekable
from ..state import TrainState
from ..step_variables import LOSS_SCALING
from ..variables import METRICS_PREFIX, assign_local_values, local_values
from .comparison import Comparison, VariableDifference, count_ulps, same_history

Values = dict[str, list[np.ndarray]]
Digests = list[dict[str, bytes]]

# What fit does not have, where it may change numbers.
_OF_ENGINE: dict[str, tuple[Any, ...]] = {
    "numerics": ("fast",),
    "jit_scope": ("update",),
    "narrow_products": (True,),
    "on_nonfinite": ("stop", "skip", "rollback"),
}
_OF_REPLICAS: dict[str, tuple[Any, ...]] = {
    "uneven": ("exact",),
    "clip": ("global",),
    "replica_rng": ("distinct",),
    "sync_statistics": (True,),
}


def compare_with_fit(
    make_state: Callable[[], TrainState],
    make_dataset: Callable[[], Any],
    config: TrainConfig,
    *,
    make_validation_data: Callable[[], Any] | None = None,
    strategy: tf.distribute.Strategy | None = None,
    class_weight: Mapping[int, float] | None = None,
    hooks: tuple[Hook, ...] = (),
) -> Comparison:
    """Trains twice from the same weights on the same batches, with the engine and with `fit`.

    Context: cross-replica, on the host, outside `strategy.scope()`. Keras's session is cleared.

    Args:
      make_state: Returns a new state; called inside the strategy's scope, with the global seed set.
      make_dataset: Returns a new dataset. Under a strategy, fit takes one batch to build the model
        before it trains: the order must be fixed, or the dataset seekable, as the pipeline's.
      config: As for `fit`; both sides have its `jit_compile` and `run_eagerly`: the bits are those
        of `fit(jit_compile=True)`, at any `jit_scope`, or of `fit(run_eagerly=True)`. Keras runs
        one step an execution.
      make_validation_data: Likewise, for validation.
      strategy: Default: TensorFlow's own for one device.
      class_weight: Given to both sides.
      hooks: For the engine's side.

    Returns:
      What was found. If the two differ, both are trained again and compared after each step, to
      name the first one at which they part, and settings that fit does not have.

    Raises:
      ConfigError: If fit cannot train with this config.

    Example:
      >>> make_state = lambda: engine.TrainState(build_model(), "sgd", loss="mse")
      >>> comparison = engine.compare_with_fit(make_state, lambda: train_ds, config)
      >>> comparison.is_equal, comparison.has_moved
      (True, True)
    """
    check_function(make_state, "make_state", "a new TrainState")
    check_function(make_dataset, "make_dataset", "a new dataset")
    check_config(config)
    strategy = strategy or tf.distribute.get_strategy()
    _check_comparable(config, strategy)
    config = dataclasses.replace(config, parity="fit")
    sides = _Sides(make_state, make_dataset, config, make_validation_data, strategy, class_weight)
    ours, engine_history, before = sides.train_with_engine(hooks=hooks)
    theirs, fit_history = sides.train_with_fit(before)
    differences = [_difference(name, ours[name], theirs[name], before[name]) for name in before]
    other = "fit(run_eagerly=True)" if config.run_eagerly else "fit"
    other = "fit(jit_compile=True)" if config.jit_compile else other
    found = Comparison(engine_history, fit_history, differences, None, other)
    if found.is_equal:
        return found
    first = _find_first_difference(sides, before) + _name_own(config, strategy)
    return dataclasses.replace(found, first_difference=first)


def _check_comparable(config: TrainConfig, strategy: tf.distribute.Strategy) -> None:
    """Raises ConfigError if fit cannot train with a config."""
    number = config.gradient_accumulation_steps
    if number > 1:
        raise ConfigError(
            f"gradient_accumulation_steps={number} in a comparison: fit has it in the optimizer "
            "alone, where schedules, averages and `iterations` count each batch, so that its "
            "numbers are others. Leave it out, or give it to the optimizer, which both sides have."
        )
    num_replicas = strategy.num_replicas_in_sync
    if config.jit_compile and num_replicas > 1:
        raise ConfigError(
            f"jit_compile=true in a comparison on {num_replicas} replicas: fit fails there, since "
            "XLA cannot compile the exchange between replicas. Leave it out, or use one replica."
        )


def _name_own(config: TrainConfig, strategy: tf.distribute.Strategy) -> str:
    """Returns a sentence on settings that may be why the two differ, or ""."""
    own = _OF_ENGINE | (_OF_REPLICAS if strategy.num_replicas_in_sync > 1 else {})
    values = {name: getattr(config, name) for name in own}
    named = [f"{name}={show(value)}" for name, value in values.items() if value in own[name]]
    return f" Fit does not have {', '.join(named)}, which may be why." if named else ""


class _Sides:
    """The two trainings; each call starts again from the same initial values."""

    def __init__(
        self,
        make_state: Callable[[], TrainState],
        make_dataset: Callable[[], Any],
        config: TrainConfig,
        make_validation_data: Callable[[], Any] | None,
        strategy: tf.distribute.Strategy,
        class_weight: Mapping[int, float] | None,
    ) -> None:
        self.config = config
        self._make_state = make_state
        self._make_dataset = make_dataset
        self._make_validation_data = make_validation_data or (lambda: None)
        self._strategy = strategy
        self._class_weight = class_weight

    def train_with_engine(
        self, initial: Values | None = None, *, hooks: tuple[Hook, ...] = (), **changes: Any
    ) -> tuple[Values, dict[str, list[Any]], Values]:
        """Returns the final values, the history and the initial values."""
        dataset = self._make_dataset()
        state = self._start(dataset, initial)
        before = _values(state)
        history = loop.fit(
            state,
            dataset,
            dataclasses.replace(self.config, **changes),
            validation_data=self._make_validation_data(),
            class_weight=self._class_weight,
            hooks=hooks,
        )
        return _values(state), history.history, before

    def train_with_fit(
        self, initial: Values, *, after_step: Callable[[TrainState], object] | None = None
    ) -> tuple[Values, dict[str, list[Any]]]:
        """Returns the final values and the history."""
        dataset, config = self._make_dataset(), self.config
        state = self._start(dataset, initial)
        callbacks: list[keras.callbacks.Callback] = [_seek_callback(dataset)]
        if after_step is not None:
            callbacks.append(
                keras.callbacks.LambdaCallback(
                    on_train_batch_end=lambda batch, logs: after_step(state)
                )
            )
        state.model.steps_per_execution = 1  # not what it was compiled with
        if config.jit_compile is not None:
            state.model.jit_compile = config.jit_compile
        if config.run_eagerly:
            state.model.run_eagerly = True
        history = state.model.fit(
            dataset,
            epochs=config.epochs,
            initial_epoch=config.initial_epoch,
            steps_per_epoch=config.steps_per_epoch,
            validation_data=self._make_validation_data(),
            validation_freq=config.validation_freq,
            validation_steps=config.validation_steps,
            class_weight=self._class_weight,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
        )
        return _values(state), history.history

    def _start(self, dataset: Any, initial: Values | None) -> TrainState:
        policy = keras.config.dtype_policy()
        # For equal names on both sides. It forgets the policy, too.
        keras.utils.clear_session(free_memory=False)
        keras.config.set_dtype_policy(policy)
        keras.utils.set_random_seed(self.config.seed or 0)
        with self._strategy.scope():
            state = self._make_state()
        check_state(state, "what make_state returns")
        state.build(dataset.element_spec)
        if initial is not None:
            for name, variable in state.named_variables():
                if name in initial:
                    assign_local_values(variable, initial[name])
        return state


def _find_first_difference(sides: _Sides, initial: Values) -> str:
    ours: Digests = []
    theirs: Digests = []
    record = LambdaHook(on_execution_end=lambda info: ours.append(_digests(info.state)))
    _, engine_history, _ = sides.train_with_engine(initial, hooks=(record,), steps_per_execution=1)
    _, fit_history = sides.train_with_fit(initial, after_step=lambda s: theirs.append(_digests(s)))
    for step, (a, b) in enumerate(zip(ours, theirs, strict=False), start=1):
        names = [name for name in a if a[name] != b[name]]
        if names:
            return f"first at step {step}, in {', '.join(names[:3])}" + _and_more(names[3:])
    if len(ours) != len(theirs):
        return f"the engine did {len(ours)} steps, fit {len(theirs)}; equal until then."
    if not same_history(engine_history, fit_history):
        names = [k for k in engine_history if engine_history[k] != fit_history.get(k)]
        return f"all {len(ours)} steps are equal, but not the logs of {', '.join(names) or 'fit'}."
    return (
        f"all {len(ours)} steps are equal one by one: the two differ only with "
        f"steps_per_execution={sides.config.steps_per_execution}."
    )


def _seek_callback(dataset: Any) -> keras.callbacks.Callback:
    """Starts each epoch of fit where the engine starts it."""
    if not isinstance(dataset, Seekable):
        return keras.callbacks.Callback()
    return keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: dataset.seek(epoch))


def _values(state: TrainState) -> Values:
    # Of the metrics, what counts is what they report: the history.
    return {
        name: local_values(variable)
        for name, variable in state.named_variables()
        if not name.startswith((METRICS_PREFIX, LOSS_SCALING))  # which fit does not have
    }


def _digests(state: TrainState) -> dict[str, bytes]:
    return {
        name: hashlib.blake2b(b"".join(v.tobytes() for v in values), digest_size=8).digest()
        for name, values in _values(state).items()
    }


def _difference(
    name: str, ours: list[np.ndarray], theirs: list[np.ndarray], before: list[np.ndarray]
) -> VariableDifference:
    # One array stands for all replicas where they agree.
    count = max(len(ours), len(theirs))
    ours, theirs = (v * count if len(v) == 1 else v for v in (ours, theirs))
    ulps = [count_ulps(a, b) for a, b in zip(ours, theirs, strict=True)]
    return VariableDifference(
        name=name,
        max_ulps=max((int(u.max()) for u in ulps if u.size), default=0),
        num_different=sum(int(np.count_nonzero(u)) for u in ulps),
        num_elements=sum(u.size for u in ulps),
        has_moved=any(a.tobytes() != before[0].tobytes() for a in ours),
    )


def _and_more(names: list[str]) -> str:
    return f" and {len(names)} more." if names else "."
