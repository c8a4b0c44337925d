"""tune: measures how a training runs fastest on this machine, in about a minute.

Trials run in turn, each on a state and a dataset of its own.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from .. import devices, runtime
from .. import step as step_lib
from ..config import TrainConfig
from ..options import ConfigError
from ..replicated_step import StepFn
from ..state import TrainState
from .choice import Measurement, Tuning, best_of
from .trial import Trial, run_in_turn, speed_ratios

MakeState = Callable[[], TrainState]
MakeDataset = Callable[..., tf.data.Dataset]
Changes = dict[str, Any]
# Seconds of a step in a process of its own: (changes, number of steps) -> seconds; None: it failed.
SecsInProcess = Callable[[Changes, int], float | None]

NUM_ROUNDS = 5
WARM_UP_SECS = 0.5
# A trial that is this many times slower in its first window is not measured any further.
HOPELESS = 3.0

# The trials of a group take turns with the best so far; the one that gains most joins the best.
# `prefetch` is an argument of the dataset, the rest are fields of the config.
EXACT: tuple[tuple[Changes, ...], ...] = (
    ({"steps_per_execution": 1}, {"steps_per_execution": 32}),
    ({"input": "streamed"}, {"input": "streamed", "prefetch": 16}),
)
XLA: tuple[Changes, ...] = tuple(
    {"jit_compile": True, "jit_scope": scope} for scope in ("loop", "step", "update")
)
EXACT_THREADS: Changes = {"inter_op_threads": 1}
# Changes bits: the number of threads within an operation decides how it splits its sums.
FAST_THREADS: Changes = {"intra_op_threads": 1}
_TRIED = ("numerics", "steps_per_execution", "jit_compile", "jit_scope", "input")


def tune(
    make_state: MakeState,
    make_dataset: MakeDataset,
    config: TrainConfig,
    *,
    train_step: StepFn = step_lib.train_step,
    secs_in_process: SecsInProcess | None = None,
    max_secs: float = 45.0,
) -> Tuning:
    """Measures what is fastest for a model on this machine; see `Tuning`.

    Context: cross-replica, on the host, on one device. Each trial trains its own state on its own
    dataset, and changes nothing else.

    Args:
      make_state: Returns a new state; called with the dtype policy of the trial in effect.
      make_dataset: Returns the dataset to train on; a trial may pass `prefetch=`.
      config: What the trials vary. Of the fields that they try, only `precision` is read.
      train_step: As in `fit`.
      secs_in_process: `(changes, num_steps) -> seconds` of a step, median, in a training of that
        many steps in a new process, with these changes of the config; None if it failed. Numbers of
        threads need it, because a process cannot change its own. None: they are not tried.
      max_secs: No trial starts later; the one that is running then finishes.

    Raises:
      ConfigError: If the config is for several replicas.
    """
    if config.strategy not in ("default", None):
        raise ConfigError(
            f"tune with strategy={config.strategy!r}: it tunes for one device. Use "
            "strategy='default'."
        )
    deadline = time.monotonic() + max_secs
    bench = _Bench(make_state, make_dataset, _base(config), train_step, deadline)
    result = Tuning()
    for group in EXACT:
        result.exact |= bench.try_group(result, result.exact, group)
    fast = {**result.exact, "numerics": "fast"}
    plain: tuple[Changes, ...] = ({},)
    precision = config.precision or keras.config.dtype_policy().name
    if precision == "float32" and runtime.has_fast_bfloat16():
        plain += ({"precision": "mixed_bfloat16"},)
    fast |= bench.try_group(result, fast, plain, over=result.exact)
    fast |= bench.try_group(result, fast, XLA)
    if secs_in_process is not None:
        threads = bench.try_threads(result, secs_in_process, result.exact, EXACT_THREADS)
        result.exact |= threads
        fast |= threads
        fast |= bench.try_threads(result, secs_in_process, fast, FAST_THREADS)
    result.fast = {name: value for name, value in fast.items() if name != "numerics"}
    return result


class _Bench:
    """Runs trials and records their results."""

    def __init__(
        self,
        make_state: MakeState,
        make_dataset: MakeDataset,
        base: TrainConfig,
        train_step: StepFn,
        deadline: float,
    ) -> None:
        self._make_state = make_state
        self._make_dataset = make_dataset
        self._base = base
        self._defaults: Changes = {name: getattr(base, name) for name in _TRIED}
        self._train_step = train_step
        self._deadline = deadline
        self._trials: dict[str, Trial] = {}

    def try_group(
        self,
        result: Tuning,
        best: Changes,
        group: Sequence[Changes],
        over: Changes | None = None,
    ) -> Changes:
        """Measures changes of the best so far, in turn with `over` or else the best itself."""
        reference = self._trial(best if over is None else over)
        found, rivals = [], []
        for changes in group:
            rival, note = self._prepare(best | changes, reference)
            if rival is None:
                found.append(_measurement(best, changes, note=note))
            else:
                rivals.append((rival, changes))
        run_in_turn([reference, *(rival for rival, _ in rivals)], NUM_ROUNDS)
        if not result.measurements:
            result.measurements.append(_measurement({}, {}, 1.0, 1 / reference.speed))
        for rival, changes in rivals:
            ratios = speed_ratios(rival, reference, NUM_ROUNDS)
            secs = 1 / statistics.median(rival.speeds[-NUM_ROUNDS:])
            one = _measurement(best, changes, statistics.median(ratios), secs)
            found.append(dataclasses.replace(one, is_sure=sum(r <= 1 for r in ratios) <= 1))
        result.measurements += found
        return {name: value for name, value in best_of(found).items() if name != "numerics"}

    def try_threads(
        self, result: Tuning, secs_in_process: SecsInProcess, best: Changes, changes: Changes
    ) -> Changes:
        """Measures numbers of threads: the best so far and a change of it, in new processes."""
        num_steps = max(2, int(self._trial(best).speed))  # about a second
        secs: list[float | None] = []
        for tried in (best, best | changes):
            if time.monotonic() > self._deadline:
                found = _measurement(best, changes, note="no time was left")
                break
            secs.append(secs_in_process(self._defaults | tried, num_steps))
        else:
            before, after = secs
            if before is None or after is None:
                found = _measurement(best, changes, note="its process failed")
            else:
                found = _measurement(best, changes, before / after, after)
        result.measurements.append(found)
        return {name: value for name, value in best_of([found]).items() if name in changes}

    def _trial(self, changes: Changes) -> Trial:
        key = json.dumps(changes, sort_keys=True)
        if key not in self._trials:
            of_config = {name: value for name, value in changes.items() if name != "prefetch"}
            of_dataset = {name: value for name, value in changes.items() if name == "prefetch"}
            config = dataclasses.replace(self._base, **of_config)
            with runtime.dtype_policy(config.precision):
                state, dataset = self._make_state(), self._make_dataset(**of_dataset)
                state.build(dataset.element_spec)
            resident = config.input != "streamed" and not devices.has_gpu()
            trial = Trial(dataset, state, config, self._train_step, resident=resident)
            with runtime.dtype_policy(config.precision):
                trial.warm_up(WARM_UP_SECS)
            trial.measure()
            self._trials[key] = trial
        return self._trials[key]

    def _prepare(self, changes: Changes, reference: Trial) -> tuple[Trial | None, str]:
        """Returns a trial that has warmed up; or None, and why it is not measured."""
        if time.monotonic() > self._deadline:
            return None, "no time was left"
        try:
            trial = self._trial(changes)
        except tf.errors.OpError as error:  # what XLA cannot compile
            return None, f"failed: {type(error).__name__}"
        factor = reference.speed / trial.speed
        return (None, f"given up: {factor:.1f} times slower") if factor > HOPELESS else (trial, "")


def _base(config: TrainConfig) -> TrainConfig:
    defaults = {f.name: f.default for f in dataclasses.fields(TrainConfig) if f.name in _TRIED}
    changes: Changes = {**defaults, "steps_per_epoch": None}
    return dataclasses.replace(config, **changes)


def _measurement(
    best: Changes,
    changes: Changes,
    gain: float | None = None,
    secs: float | None = None,
    note: str = "",
) -> Measurement:
    numerics = {"numerics": best["numerics"]} if "numerics" in best else {}
    changes_bits = bool(numerics) or "intra_op_threads" in changes
    usecs = None if secs is None else 1e6 * secs
    return Measurement(numerics | changes, gain, usecs, changes_bits, note)
