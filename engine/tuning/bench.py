"""The trials of a search, each of which takes turns with the best one so far."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf

from .. import devices, runtime
from ..config import TrainConfig
from ..options import ConfigError
from ..replicated_step import StepFn
from ..state import TrainState
from .choice import MIN_GAIN, OF_PROCESSES, TRIED, Bits, Measurement, may_change_bits
from .trial import (
    Measurable,
    MeasurableInProcess,
    Trial,
    make_trial,
    ratio_of,
    run_in_turn,
)

MakeState = Callable[[], TrainState]
MakeDataset = Callable[..., tf.data.Dataset]
Changes = dict[str, Any]
Key = frozenset[tuple[str, Any]]  # of a trial
# A trial of a config with these changes in a process of its own. Raises OSError if that fails.
TrialInProcess = Callable[[Changes], contextlib.AbstractContextManager[MeasurableInProcess]]

NUM_ROUNDS = 7
WARM_UP_SECS = 0.5
BURST_SECS = 0.15
# A trial that is this many times slower in each of its first windows is not measured any further.
HOPELESS = 3.0
NUM_FIRST_WINDOWS = 2
_LONGEST = 160  # characters of an error that a row shows


@dataclasses.dataclass(frozen=True)
class Makers:
    """What trials are made with; see `tune`."""

    state: MakeState
    dataset: MakeDataset
    train_step: StepFn
    in_process: TrialInProcess | None


class _TooSlow(Exception):
    """A trial is hopeless; the message says how slow it is."""


class Bench:
    """Runs trials, beside the defaults or a better one.

    Args:
      makers: What trials are made with.
      config: Of the search; what trials vary is the default.
      processes: Ends their processes.

    Attributes:
      deadline: On the clock of `time.monotonic`; no trial of this process begins later.
    """

    def __init__(
        self,
        makers: Makers,
        config: TrainConfig,
        processes: contextlib.ExitStack,
    ) -> None:
        self._makers = makers
        fields = dataclasses.fields(TrainConfig)
        self._defaults: Changes = {f.name: f.default for f in fields if f.name in TRIED}
        self._base = dataclasses.replace(config, **self._defaults)
        self._processes = processes
        self.deadline = math.inf
        self._trials: dict[Key, MeasurableInProcess] = {}  # in processes
        self._ends: dict[Key, contextlib.ExitStack] = {}  # of these processes
        self._trials_here: dict[Key, Trial] = {}
        # Why XLA is not tried for steps any more.
        self._hopeless = ""

    def candidates(self, kept: Changes, group: Iterable[Changes]) -> list[Changes]:
        """Returns what is tried of a group.

        Args:
          kept: What is best so far.
          group: Changes of it.
        """
        precision = self._base.precision or keras.config.dtype_policy().name
        has_bfloat16 = precision == "float32" and runtime.has_fast_bfloat16()
        return [
            kept | changes
            for changes in group
            if (has_bfloat16 or "precision" not in changes)
            and not ("narrow_products" in changes and devices.has_gpu())
            and (self._makers.in_process is not None or not _needs_process(changes))
        ]

    def measure_defaults(self) -> Measurement:
        """Returns the row of the defaults themselves."""
        trial = self._here({})
        run_in_turn([trial], NUM_ROUNDS, BURST_SECS)
        ratio = ratio_of(trial, trial, NUM_ROUNDS)
        return Measurement({}, 1.0, 1.0, 1.0, ratio.usecs, ratio.usecs)

    def measure(self, changes: Changes, best: Measurement) -> Measurement:
        """Returns the speed of a candidate, or why it was not measured.

        It takes turns with what is best so far; if it needs a process, with a process of that.

        Args:
          changes: Of the defaults.
          best: Of the class that it is tried for, or the defaults if nothing of that was measured.
        """
        try:
            return self._excuse(changes, best) or self._run(changes, best)
        except _TooSlow as slow:
            if _has_steps_in_xla(changes) and not _has_steps_in_xla(best.changes):
                self._hopeless = f"given up: steps in XLA are {slow}"
            return Measurement(changes, note=f"given up: {slow}")
        except ConfigError:
            return Measurement(changes, note="not for this training")  # beside other settings
        except OSError as error:
            for failed in (changes, best.changes):  # which of both is not known
                self._end(failed)
            return Measurement(changes, note=f"its process failed: {error}")
        except Exception as error:  # what XLA or another precision makes of a person's own code
            return Measurement(changes, note=f"failed: {in_one_line(error)}")

    def _excuse(self, changes: Changes, best: Measurement) -> Measurement | None:
        """Returns the row of a candidate that is not tried; None: it is."""
        note = self._hopeless if _has_steps_in_xla(changes) else ""
        if _needs_process(changes):
            if best.bits is not Bits.of(changes, keeps_bits=True):
                note = note or "nothing of its class was measured, to compare it with"
        elif time.monotonic() > self.deadline:
            note = note or "no time was left"
        return Measurement(changes, note=note) if note else None

    def _run(self, changes: Changes, best: Measurement) -> Measurement:
        """Returns the speed of a candidate that takes turns with what is best so far.

        Raises:
          _TooSlow: If it is hopeless in each of its first windows.
        """
        in_process = _needs_process(changes)
        make: Callable[[Changes], Measurable] = self._process if in_process else self._here
        other, trial = make(best.changes), make(changes)
        _check_first_windows(trial, other)
        run_in_turn([other, trial], NUM_ROUNDS, BURST_SECS)
        value, low, high, usecs, other_usecs = ratio_of(trial, other, NUM_ROUNDS)
        keeps_bits, note, gain = False, "", best.gain or 0.0
        if may_change_bits(changes) and best.bits is not Bits.FREE:
            note = "bits not compared: no gain"
            if value >= MIN_GAIN:
                keeps_bits = self._process(changes).bits() == self._process(best.changes).bits()
                note = "" if keeps_bits else "has other bits: not kept"
        return Measurement(
            changes, gain * value, gain * low, gain * high, usecs, other_usecs, note, keeps_bits
        )

    def _here(self, changes: Changes) -> Trial:
        """Returns a trial in this process, the same one each time."""
        key = frozenset(changes.items())
        if key not in self._trials_here:
            self._trials_here[key] = self._make(changes)
        return self._trials_here[key]

    def forget(self, changes: Changes) -> None:
        """Lets go of trials that nothing takes turns with any more, and ends their process."""
        if changes:  # the defaults are the first of each class
            self._trials_here.pop(frozenset(changes.items()), None)
            self._end(changes)

    def _end(self, changes: Changes) -> None:
        key = frozenset(changes.items())
        self._trials.pop(key, None)
        self._ends.pop(key, contextlib.ExitStack()).close()

    def _process(self, changes: Changes) -> MeasurableInProcess:
        """Returns a trial in a process of its own, the same one each time."""
        assert self._makers.in_process is not None, "see candidates"
        key = frozenset(changes.items())
        if key not in self._trials:
            context = self._makers.in_process(self._defaults | changes)
            end = self._ends[key] = contextlib.ExitStack()
            self._processes.push(end)
            self._trials[key] = end.enter_context(context)
        return self._trials[key]

    def _make(self, changes: Changes) -> Trial:
        of_config, of_dataset = split_changes(changes)
        config = dataclasses.replace(self._base, **of_config)
        with runtime.dtype_policy(config.precision):
            dataset = self._makers.dataset(**of_dataset)
            trial = make_trial(self._makers.state(), dataset, config, self._makers.train_step)
            trial.warm_up(WARM_UP_SECS)
        return trial


def split_changes(changes: Changes) -> tuple[Changes, Changes]:
    """Returns the changes of the config, and those of the dataset."""
    is_of_data = {name: name == "prefetch" for name in changes}
    of_config, of_dataset = (
        {name: value for name, value in changes.items() if is_of_data[name] is of_data}
        for of_data in (False, True)
    )
    return of_config, of_dataset


def _check_first_windows(trial: Measurable, other: Measurable) -> None:
    """Raises _TooSlow if a trial is hopeless beside another one."""
    factor = math.inf
    for _ in range(NUM_FIRST_WINDOWS):  # other work on the machine may hold up one of them
        run_in_turn([other, trial], 1, BURST_SECS)
        factor = min(factor, other.speeds[-1] / trial.speeds[-1])
        if factor <= HOPELESS:
            return
    raise _TooSlow(f"{factor:.1f} times slower")


def in_one_line(error: Exception) -> str:
    """Returns the type of an error, and what it says, shortened."""
    text = " ".join(str(error).split())
    if text.startswith("in user code:"):  # AutoGraph puts the lines of code before what is wrong
        text = str(error).rstrip().splitlines()[-1].strip()
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def _has_steps_in_xla(changes: Changes) -> bool:
    return bool(changes.get("jit_compile")) and changes.get("jit_scope") != "update"


def _needs_process(changes: Changes) -> bool:
    # Bits are compared between processes.
    return may_change_bits(changes) or any(name in changes for name in OF_PROCESSES)
