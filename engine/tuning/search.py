"""tune: measures how a training runs fastest on this machine, in a minute or two.

Each candidate takes turns with the defaults, in short windows within seconds: this one measurement
is what the table shows, and what decides. Candidates have states and datasets of their own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any, cast

import keras
import tensorflow as tf

from .. import runtime
from .. import step as step_lib
from ..config import TrainConfig
from ..options import ConfigError
from ..replicated_step import StepFn
from ..state import TrainState
from ..strategy import is_on_cpu
from .choice import (
    CHOICES,
    OF_PROCESSES,
    TRIED,
    Bits,
    Measurement,
    Tuning,
    choose,
    may_change_bits,
)
from .trial import Measurable, MeasurableInProcess, Trial, ratio_of, run_in_turn

MakeState = Callable[[], TrainState]
MakeDataset = Callable[..., tf.data.Dataset]
Changes = dict[str, Any]
# A trial of a config with these changes in a process of its own. Raises OSError if that fails.
TrialInProcess = Callable[[Changes], contextlib.AbstractContextManager[MeasurableInProcess]]

NUM_ROUNDS = 7
WARM_UP_SECS = 0.5
BURST_SECS = 0.15
# A trial that is this many times slower in its first window is not measured any further.
HOPELESS = 3.0

_ONE_THREAD: Changes = {"intra_op_threads": 1}
_NARROW: Changes = {"narrow_products": True}
_OF_XLA: tuple[Changes, ...] = (
    {},
    *({"jit_compile": True, "jit_scope": scope} for scope in ("loop", "step", "update")),
)
Groups = tuple[tuple[Changes, ...], ...]
# In each class of bits: what its candidates have in common, and the groups of changes. What is best
# after a group is what the next one changes. `prefetch` is an argument of the dataset, the rest are
# fields of the config.
CLASSES: dict[Bits, tuple[Changes, Groups]] = {
    Bits.FIT: (
        {},
        (
            ({"steps_per_execution": 1}, {"steps_per_execution": 32}),
            ({"input": "streamed"}, {"input": "streamed", "prefetch": 16}),
            ({"compile_update": True},),
            ({"inter_op_threads": 1}, _ONE_THREAD),
        ),
    ),
    Bits.XLA: (
        {"jit_compile": True},
        (({}, {"jit_scope": "loop"}), (_NARROW,), (_ONE_THREAD,)),
    ),
    Bits.FREE: (
        {"numerics": "fast"},
        (
            # All together: with XLA, another precision may be faster than without.
            tuple(p | x for p in ({}, {"precision": "mixed_bfloat16"}) for x in _OF_XLA),
            (_ONE_THREAD,),
        ),
    ),
}
# XLA and fused updates have no use for them.
_OF_FIT_ALONE = (*OF_PROCESSES, "compile_update")


def tune(  # noqa: PLR0913 - all but three by keyword
    make_state: MakeState,
    make_dataset: MakeDataset,
    config: TrainConfig,
    *,
    train_step: StepFn = step_lib.train_step,
    trial_in_process: TrialInProcess | None = None,
    show: Callable[[str], None] = lambda line: None,
    max_secs: float = 120.0,
    classes: Collection[Bits] = tuple(Bits),
) -> Tuning:
    """Measures what is fastest for a model on this machine, in each class of bits; see `Tuning`.

    Context: cross-replica, on the host, on one device. Each trial trains its own state on its own
    dataset, and changes nothing else.

    Args:
      make_state: Returns a new state; called with the dtype policy of the trial in effect.
      make_dataset: Returns the dataset to train on; a trial may pass `prefetch=`.
      config: What the trials vary. Of the fields that they try, only `precision` is read.
      train_step: As in `fit`.
      trial_in_process: Returns the trial of a config with some changes in a new process. Numbers of
        threads need it, because a process cannot change its own, and so does what may change bits,
        which processes compare. None: they are not tried.
      show: Called with a line for each candidate that was tried.
      max_secs: No candidate of this process begins later, and the others then do all the same.
      classes: Those that are searched. What is fastest with fit's bits is tried in the others.

    Raises:
      ConfigError: If the config is for several replicas.
    """
    if config.strategy not in ("default", None):
        raise ConfigError(
            f"tune with strategy={config.strategy!r}: it tunes for one device. Use "
            "strategy='default'."
        )
    makers = _Makers(make_state, make_dataset, train_step, trial_in_process)
    with contextlib.ExitStack() as processes:
        bench = _Bench(makers, _base(config), processes, time.monotonic() + max_secs)
        result = Tuning([bench.measure_defaults()])
        for bits in (one for one in CLASSES if one in classes):
            _try_class(bench, result, bits, show)
    return result


def _try_class(bench: _Bench, result: Tuning, bits: Bits, show: Callable[[str], None]) -> None:
    """Measures the candidates of a class, and keeps the fastest."""
    start, groups = CLASSES[bits]
    found = [one for one in result.measurements if one.bits is bits]
    # What is fastest with fit's bits is tried with the others, too.
    of_fit = {k: v for k, v in result.exact.items() if k not in _OF_FIT_ALONE}
    groups = groups if bits is Bits.FIT else (*groups, (of_fit,))
    kept = start
    for group in groups:
        for changes in bench.candidates(kept, group):
            if any(changes == one.changes for one in result.measurements):
                continue
            one = bench.measure(changes, bits)
            number = f"trial {len(result.measurements)} of about {bench.num_candidates}"
            show(f"{number}: {': '.join(filter(None, _in_words(one)))}")
            result.measurements.append(one)
            if one.bits is bits:
                found.append(one)
        kept = choose([one for one in found if start.items() <= one.changes.items()])[0] or start
    choice, note = choose(found)
    setattr(result, CHOICES[bits], {k: v for k, v in choice.items() if k != "numerics"})
    if note:
        result.notes[CHOICES[bits]] = note


def _in_words(one: Measurement) -> Iterable[str]:
    name, *_, speed, bits, note = one.cells()
    return name, note or f"{speed}, bits {bits}"


@dataclasses.dataclass(frozen=True)
class _Makers:
    """What trials are made with; see `tune`."""

    state: MakeState
    dataset: MakeDataset
    train_step: StepFn
    in_process: TrialInProcess | None


class _Bench:
    """Runs trials beside the defaults."""

    def __init__(
        self,
        makers: _Makers,
        base: TrainConfig,
        processes: contextlib.ExitStack,
        deadline: float,
    ) -> None:
        self._makers = makers
        self._base = base
        self._defaults: Changes = {name: getattr(base, name) for name in TRIED}
        self._processes = processes
        self._deadline = deadline
        self._trials: dict[tuple[bool, Bits], Measurable] = {}
        # Why XLA is not tried for steps any more.
        self._hopeless = ""

    @property
    def num_candidates(self) -> int:
        """How many are tried, about: what is best in one group may be what another one tries."""
        counts = [
            len(self.candidates(start, group))
            for start, groups in CLASSES.values()
            for group in groups
        ]
        return sum(counts) + len(CLASSES) - 1  # what is best with fit's bits, in the others

    def candidates(self, kept: Changes, group: Iterable[Changes]) -> list[Changes]:
        """Returns what is tried of a group: the best so far with each of its changes."""
        precision = self._base.precision or keras.config.dtype_policy().name
        has_bfloat16 = precision == "float32" and runtime.has_fast_bfloat16()
        return [
            kept | changes
            for changes in group
            if (has_bfloat16 or "precision" not in changes)
            and (self._makers.in_process is not None or not _needs_process(changes))
        ]

    def measure_defaults(self) -> Measurement:
        """Returns the row of the defaults themselves, beside which all others are measured."""
        trial = self._beside(in_process=False)
        run_in_turn([trial], NUM_ROUNDS, BURST_SECS)
        ratio = ratio_of(trial, trial, NUM_ROUNDS)
        return Measurement({}, 1.0, 1.0, 1.0, ratio.usecs, ratio.usecs)

    def measure(self, changes: Changes, bits: Bits) -> Measurement:
        """Returns the speed of a candidate beside the defaults, or why it was not measured.

        Args:
          changes: Of the defaults.
          bits: The class that it is tried for, whose bits it has only if they are shown to stay.
        """
        in_process = _needs_process(changes)
        if time.monotonic() > self._deadline and not in_process:
            return Measurement(changes, note="no time was left")
        if self._hopeless and _has_steps_in_xla(changes):
            return Measurement(changes, note=self._hopeless)
        try:
            defaults = self._beside(in_process=in_process)
            trial = self._start(changes) if in_process else self._make(changes)
            run_in_turn([defaults, trial], 1, BURST_SECS)
            factor = defaults.speeds[-1] / trial.speeds[-1]
            if factor > HOPELESS:
                return self._give_up(changes, factor)
            run_in_turn([defaults, trial], NUM_ROUNDS, BURST_SECS)
            ratio = ratio_of(trial, defaults, NUM_ROUNDS)
            # What is slower is not kept.
            is_checked = bits is not Bits.FREE and may_change_bits(changes) and ratio.value > 1
            keeps_bits = is_checked and self._has_bits(trial, bits)
        except (ConfigError, tf.errors.OpError, OSError) as error:
            return Measurement(changes, note=_why(error))
        note = "has other bits" if is_checked and not keeps_bits else ""
        return Measurement(changes, *ratio, note=note, keeps_bits=keeps_bits)

    def _has_bits(self, trial: Measurable, bits: Bits) -> bool:
        """Returns whether a process has the bits of the class, which another one has by default."""
        processes = [trial, self._beside(in_process=True, bits=bits)]
        one, by_default = (cast("MeasurableInProcess", process).bits() for process in processes)
        return one == by_default

    def _give_up(self, changes: Changes, factor: float) -> Measurement:
        """Returns the row of a candidate that is hopeless; others with steps in XLA are as well."""
        slower = f"{factor:.1f} times slower"
        if _has_steps_in_xla(changes):
            self._hopeless = f"given up: steps in XLA are {slower}"
        return Measurement(changes, note=f"given up: {slower}")

    def _beside(self, *, in_process: bool, bits: Bits = Bits.FIT) -> Measurable:
        """Returns the trial of the defaults of a class, the same one each time."""
        if (in_process, bits) not in self._trials:
            make = self._start if in_process else self._make
            self._trials[in_process, bits] = make(CLASSES[bits][0])
        return self._trials[in_process, bits]

    def _start(self, changes: Changes) -> MeasurableInProcess:
        """Returns a trial in a new process, which ends with the search."""
        assert self._makers.in_process is not None, "see candidates"
        context = self._makers.in_process(self._defaults | changes)
        return self._processes.enter_context(context)

    def _make(self, changes: Changes) -> Measurable:
        of_config, of_dataset = split_changes(changes)
        config = dataclasses.replace(self._base, **of_config)
        with runtime.dtype_policy(config.precision):
            dataset = self._makers.dataset(**of_dataset)
            trial = make_trial(self._makers.state(), dataset, config, self._makers.train_step)
            trial.warm_up(WARM_UP_SECS)
        return trial


def make_trial(
    state: TrainState, dataset: tf.data.Dataset, config: TrainConfig, train_step: StepFn
) -> Trial:
    """Returns a training of this config that can be measured. Builds the state."""
    state.build(dataset.element_spec)
    resident = config.input != "streamed" and is_on_cpu(state.strategy)
    return Trial(dataset, state, config, train_step, resident=resident)


def split_changes(changes: Changes) -> tuple[Changes, Changes]:
    """Returns the changes of the config, and those of the dataset."""
    is_of_data = {name: name == "prefetch" for name in changes}
    of_config, of_dataset = (
        {name: value for name, value in changes.items() if is_of_data[name] is of_data}
        for of_data in (False, True)
    )
    return of_config, of_dataset


def _why(error: Exception) -> str:
    """Returns why a candidate was not measured."""
    if isinstance(error, ConfigError):  # beside the run's other settings
        return "not for this training"
    if isinstance(error, OSError):
        return f"its process failed: {error}"
    return f"failed: {type(error).__name__}"  # what cannot be compiled


def _has_steps_in_xla(changes: Changes) -> bool:
    return bool(changes.get("jit_compile")) and changes.get("jit_scope") != "update"


def _needs_process(changes: Changes) -> bool:
    # Bits are compared in processes that have trained nothing else.
    return may_change_bits(changes) or any(name in changes for name in OF_PROCESSES)


def _base(config: TrainConfig) -> TrainConfig:
    defaults = {f.name: f.default for f in dataclasses.fields(TrainConfig) if f.name in TRIED}
    changes: Changes = {**defaults, "steps_per_epoch": None}
    return dataclasses.replace(config, **changes)
