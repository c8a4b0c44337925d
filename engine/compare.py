"""compare_with_fit: trains a model twice, with the engine and with fit, bit against bit."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from engine import loop
from engine.checkpoint import assign_local_values, local_values
from engine.config import TrainConfig
from engine.hooks import Hook, LambdaHook
from engine.state import METRICS_PREFIX, TrainState

Values = dict[str, list[np.ndarray]]
Digests = list[dict[str, bytes]]


@dataclasses.dataclass(frozen=True)
class VariableDifference:
    """One variable after both trainings.

    Attributes:
      name: As in `TrainState.named_variables`.
      max_ulps: Largest difference over the elements, in units in the last place: how many values of
        its dtype lie between the two. 0: all bits are equal. For integers, the plain difference.
      num_different: Elements whose bits differ.
      num_elements: Elements, over the replicas where they differ from one another.
      has_moved: Whether training changed it at all.
    """

    name: str
    max_ulps: int
    num_different: int
    num_elements: int
    has_moved: bool


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare_with_fit` found.

    Attributes:
      engine_history: The engine's `History.history`.
      fit_history: Keras's `History.history`.
      variables: One entry for every variable of the model and the optimizer.
      first_difference: Where the two part, in words; None if they do not.
    """

    engine_history: dict[str, list[Any]]
    fit_history: dict[str, list[Any]]
    variables: list[VariableDifference]
    first_difference: str | None

    @property
    def is_equal(self) -> bool:
        """Whether all bits are equal: of every variable and every logged number."""
        return _same_history(self.engine_history, self.fit_history) and not any(
            v.num_different for v in self.variables
        )

    @property
    def has_moved(self) -> bool:
        """Whether training changed anything: two runs that do nothing are equal, too."""
        return any(v.has_moved for v in self.variables)

    def to_table(self) -> str:
        """Returns the whole finding for people, a line a logged number and a line a variable."""
        lines = [f"{'epoch':>5}  {'name':<24} {'engine':>16} {'fit':>16}  equal"]
        for name in sorted(self.engine_history.keys() | self.fit_history.keys()):
            ours, theirs = self.engine_history.get(name, []), self.fit_history.get(name, [])
            for epoch in range(max(len(ours), len(theirs))):
                a, b = (h[epoch] if epoch < len(h) else None for h in (ours, theirs))
                equal = "yes" if _same_values([a], [b]) else "NO"
                lines.append(f"{epoch + 1:>5}  {name:<24} {a!s:>16.16} {b!s:>16.16}  {equal}")
        lines += ["", f"{'variable':<56} {'max ULP':>10} {'different':>20}"]
        for v in self.variables:
            different = f"{v.num_different} of {v.num_elements}"
            lines.append(f"{v.name:<56} {v.max_ulps:>10} {different:>20}")
        return "\n".join([*lines, "", self._verdict()])

    def _verdict(self) -> str:
        if not self.has_moved:
            return "void: training changed no variable, so that nothing was shown."
        if self.is_equal:
            moved = sum(v.has_moved for v in self.variables)
            return (
                f"equal: all bits of {len(self.variables)} variables ({moved} moved) and all logs."
            )
        return f"DIFFERENT: {self.first_difference}"


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
      make_state: Makes a fresh state; called inside the strategy's scope, with the global seed set.
      make_dataset: Makes a fresh data set. Under a strategy, fit takes one batch to build the model
        before it trains: the order must be fixed, or the data set have `seek`, like the
        pipeline's.
      config: As for `fit`; `jit_compile` is given to both sides. Keras runs one step an execution.
      make_validation_data: Likewise, for validation.
      strategy: Default: TensorFlow's own for one device.
      class_weight: Given to both sides.
      hooks: For the engine's side.

    Returns:
      What was found. If the two differ, both are trained again and compared after each step, to
      name the first one at which they part.
    """
    sides = _Sides(
        make_state, make_dataset, config, make_validation_data,
        strategy or tf.distribute.get_strategy(), class_weight,
    )  # fmt: skip
    ours, engine_history, before = sides.train_with_engine(hooks=hooks)
    theirs, fit_history = sides.train_with_fit(before)
    differences = [_difference(name, ours[name], theirs[name], before[name]) for name in before]
    found = Comparison(engine_history, fit_history, differences, None)
    if found.is_equal:
        return found
    return dataclasses.replace(found, first_difference=_find_first_difference(sides, before))


def count_ulps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns how many values of the dtype lie between `a` and `b`, element by element.

    Args:
      a: Floats of any width, or integers.
      b: Same shape and dtype.

    Returns:
      uint64 array of the same shape; 0 where the bits are equal. -0.0 and 0.0 are one apart.
    """
    if a.dtype.kind in "iub":
        high, low = np.maximum(a, b).astype(np.uint64), np.minimum(a, b).astype(np.uint64)
        return np.asarray(high - low)  # modulo 2**64, so that signs do not matter
    # The bits of positive floats are ordered like the floats; those of negative ones backwards.
    unsigned = np.dtype(f"u{a.dtype.itemsize}")
    sign = unsigned.type(1 << (8 * a.dtype.itemsize - 1))
    x, y = (
        np.where(bits & sign, ~bits, bits | sign)
        for bits in (np.ascontiguousarray(v).view(unsigned) for v in (a, b))
    )
    return (np.maximum(x, y) - np.minimum(x, y)).astype(np.uint64)


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
        if config.jit_compile != "auto":
            state.model.jit_compile = config.jit_compile
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
    if not _same_history(engine_history, fit_history):
        names = [k for k in engine_history if engine_history[k] != fit_history.get(k)]
        return f"all {len(ours)} steps are equal, but not the logs of {', '.join(names) or 'fit'}."
    return (
        f"all {len(ours)} steps are equal one by one: the two differ only with "
        f"steps_per_execution={sides.config.steps_per_execution}."
    )


def _seek_callback(dataset: Any) -> keras.callbacks.Callback:
    """Starts each epoch of fit where the engine starts it."""
    seek = getattr(dataset, "seek", None)
    return keras.callbacks.LambdaCallback(
        on_epoch_begin=(lambda epoch, logs: seek(epoch, 0)) if seek is not None else None
    )


def _values(state: TrainState) -> Values:
    # Of the metrics, what counts is what they report: the history.
    return {
        name: local_values(variable)
        for name, variable in state.named_variables()
        if not name.startswith(METRICS_PREFIX)
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


def _same_history(a: Mapping[str, list[Any]], b: Mapping[str, list[Any]]) -> bool:
    return a.keys() == b.keys() and all(_same_values(a[k], b[k]) for k in a)


def _same_values(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(
        x is not None and y is not None and np.array_equal(x, y, equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )


def _and_more(names: list[str]) -> str:
    return f" and {len(names)} more." if names else "."
