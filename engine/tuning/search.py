"""tune: measures how a training runs fastest on this machine, in a minute or two.

Each candidate takes turns with the defaults, in short windows within seconds: this one measurement
is what the table shows, and what decides. Candidates have states and datasets of their own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf

from .. import runtime
from .. import step as step_lib
from ..config import TrainConfig
from ..options import ConfigError
from ..replicated_step import StepFn
from ..state import TrainState
from ..strategy import is_on_cpu
from .choice import CHOICES, Bits, Measurement, Tuning, choose
from .trial import Measurable, Trial, ratio_of, run_in_turn

MakeState = Callable[[], TrainState]
MakeDataset = Callable[..., tf.data.Dataset]
Changes = dict[str, Any]
# A trial of a config with these changes in a process of its own. Raises OSError if that fails.
TrialInProcess = Callable[[Changes], contextlib.AbstractContextManager[Measurable]]

NUM_ROUNDS = 7
WARM_UP_SECS = 0.5
BURST_SECS = 0.15
# A trial that is this many times slower in its first window is not measured any further.
HOPELESS = 3.0
# A process cannot change its own.
OF_PROCESSES = ("inter_op_threads", "intra_op_threads")

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
            ({"inter_op_threads": 1},),
        ),
    ),
    Bits.XLA: ({"jit_compile": True}, (({}, {"jit_scope": "loop"}),)),
    Bits.FREE: (
        {"numerics": "fast"},
        (
            # All together: with XLA, another precision may be faster than without.
            tuple(p | x for p in ({}, {"precision": "mixed_bfloat16"}) for x in _OF_XLA),
            ({"intra_op_threads": 1},),
        ),
    ),
}
_TRIED = ("numerics", "steps_per_execution", "jit_compile", "jit_scope", "input", "compile_update")
# XLA and fused updates have no use for them.
_OF_FIT_ALONE = (*OF_PROCESSES, "compile_update")


def tune(
    make_state: MakeState,
    make_dataset: MakeDataset,
    config: TrainConfig,
    *,
    train_step: StepFn = step_lib.train_step,
    trial_in_process: TrialInProcess | None = None,
    show: Callable[[str], None] = lambda line: None,
    max_secs: float = 120.0,
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
        threads need it, because a process cannot change its own. None: they are not tried.
      show: Called with a line for each candidate that was tried.
      max_secs: No candidate of this process begins later, and the others then do all the same.

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
        for bits in CLASSES:
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
            one = bench.measure(changes)
            number = f"trial {len(result.measurements)} of about {bench.num_candidates}"
            show(f"{number}: {': '.join(filter(None, _in_words(one)))}")
            result.measurements.append(one)
            found.append(one)
        kept = choose(found)[0] or start
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
        self._defaults: Changes = {name: getattr(base, name) for name in _TRIED}
        self._processes = processes
        self._deadline = deadline
        self._defaults_of: dict[bool, Measurable] = {}
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

    def measure(self, changes: Changes) -> Measurement:
        """Returns the speed of a candidate beside the defaults, or why it was not measured."""
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
        except (ConfigError, tf.errors.OpError, OSError) as error:
            return Measurement(changes, note=_why(error))
        ratio = ratio_of(trial, defaults, NUM_ROUNDS)
        return Measurement(changes, *ratio)

    def _give_up(self, changes: Changes, factor: float) -> Measurement:
        """Returns the row of a candidate that is hopeless; others with steps in XLA are as well."""
        slower = f"{factor:.1f} times slower"
        if _has_steps_in_xla(changes):
            self._hopeless = f"given up: steps in XLA are {slower}"
        return Measurement(changes, note=f"given up: {slower}")

    def _beside(self, *, in_process: bool) -> Measurable:
        """Returns the trial of the defaults, the same one each time."""
        if in_process not in self._defaults_of:
            make = self._start if in_process else self._make
            self._defaults_of[in_process] = make({})
        return self._defaults_of[in_process]

    def _start(self, changes: Changes) -> Measurable:
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
    return any(name in changes for name in OF_PROCESSES)


def _base(config: TrainConfig) -> TrainConfig:
    defaults = {f.name: f.default for f in dataclasses.fields(TrainConfig) if f.name in _TRIED}
    changes: Changes = {**defaults, "steps_per_epoch": None}
    return dataclasses.replace(config, **changes)
