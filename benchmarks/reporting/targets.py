"""The project's targets of speed, as data, and whether the races reach them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from benchmarks.reporting import races
from benchmarks.reporting.races import BEST_FIT, BEST_PYTORCH, INFERENCE, SPEED, Found, Race

# The engine on one batch that stays in memory.
RESIDENT = "engine_resident"
REACHED, MISSED = "reached", "missed"
# Of a ratio whose interval is too wide to name it.
_BY_INTERVAL = " by all of the interval"
WORKLOADS = ("tiny", "dense", "cnn", "cnn-bf16", "lstm", "wide", "resnet50", "transformer")
# By how much the most expensive size may exceed the cheapest; see benchmarks/scaling.py.
FLAT_WITHIN = 0.03

_START, _MEMORY = "startup_secs", "peak_memory_bytes"


@dataclasses.dataclass(frozen=True)
class Target:
    """A ratio between two arms, to be reached.

    Attributes:
      workload: As `races.name_of` has it.
      arm: The arm of the numerator.
      over: The arm of the denominator, or a group such as `races.BEST_PYTORCH`.
      ratio: A minimum; for start and memory a maximum.
      measure: See `races.ratio`.
    """

    workload: str
    arm: str
    over: str
    ratio: float
    measure: str = SPEED

    @property
    def is_minimum(self) -> bool:
        """Whether `ratio` is a minimum."""
        return self.measure not in (_START, _MEMORY)

    @property
    def subject(self) -> str:
        """What the words on a miss must name: the arm of the denominator, or the measure."""
        if self.measure == SPEED:
            return "input" if self.over == RESIDENT else self.over
        return {_START: "start", _MEMORY: "memory"}.get(self.measure, self.measure)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was found for a target.

    Attributes:
      target: The target.
      found: Over the runs of the race.
      verdict: "reached", "missed by 3.2 %", or why there is no ratio.
    """

    target: Target
    found: Found
    verdict: str

    @property
    def is_missed(self) -> bool:
        """Whether it was measured, and is not reached."""
        return self.verdict.startswith(MISSED)

    @property
    def is_decided(self) -> bool:
        """Whether it is reached or missed."""
        return self.verdict.startswith((REACHED, MISSED))


_OVER = {
    "fit": "keras_fit",
    "fit_float32": "keras_fit_float32",
    "tuned": "keras_fit_tuned",
    "fit_xla": "keras_fit_xla",
    "best_fit": BEST_FIT,
    "pytorch": BEST_PYTORCH,
}


def _row(workload: str, arm: str, **ratios: float) -> tuple[Target, ...]:
    return tuple(Target(workload, arm, _OVER.get(name, name), ratios[name]) for name in ratios)


# In each class of bits: over fit with the same bits, and over others. What is free is held against
# the best that fit can be tuned to, with XLA or without.
SPEED_TARGETS = (
    *_row("tiny", "engine", fit=8, tuned=2.5, tf_loop=0.8),
    *_row("tiny", "engine_tuned", tuned=2.5, tf_loop=0.8),
    *_row("tiny", "engine_xla", fit_xla=8, jax_scan=1.05, keras_jax_fit=1.2, torch_compile=2),
    *_row("tiny", "engine_free", tf_loop=1.0),
    *_row("dense", "engine", fit=2.5, tuned=1.5, tf_loop=0.8),
    *_row("dense", "engine_tuned", tuned=1.5, tf_loop=0.8),
    *_row("dense", "engine_xla", fit_xla=2, jax_scan=1.05, keras_jax_fit=1.2, torch_compile=1.8),
    *_row("dense", "engine_free", tf_loop=1.0),
    *_row("cnn", "engine", fit=1.2, tuned=1.05, pytorch=1.5),
    *_row("cnn", "engine_free", tf_loop=1.0),
    *_row("cnn-bf16", "engine_free", fit_float32=2.5, best_fit=1.15, pytorch=1.5, tf_loop=1.0),
    *_row("lstm", "engine_free", fit=1.6, best_fit=1.5, pytorch=1.0, tf_loop=1.0),
    *_row("wide", "engine", tuned=1.3, tf_loop=0.97),
    *_row("wide", "engine_tuned", tuned=1.3, tf_loop=0.97),
    *_row("wide", "engine_free", tf_loop=1.0),
    *_row("resnet50", "engine", fit=1.05, tuned=1.02, pytorch=1.0),
    *_row("transformer", "engine", fit=1.05, tuned=1.02, pytorch=1.0),
    # Both under MirroredStrategy, on two logical devices.
    *_row("dense-x2", "engine", fit=1.3),
    *_row("cnn-x2", "engine", fit=1.3),
)
# Training on the pipeline's batches over training on one batch in memory.
INPUT = tuple(Target(name, "engine", RESIDENT, 0.97) for name in WORKLOADS)
STARTUP = tuple(Target(name, "engine", "keras_fit", 1.0, _START) for name in WORKLOADS)
MEMORY = tuple(Target(name, "engine", "keras_fit", 1.0, _MEMORY) for name in WORKLOADS)
PREDICT, EVALUATE = (
    tuple(Target(name, "engine", "keras", least, measure) for name in ("dense", "cnn"))
    for measure, least in zip(INFERENCE, (2.0, 3.0), strict=True)
)
EVERY = (*SPEED_TARGETS, *PREDICT, *EVALUATE, *INPUT, *STARTUP, *MEMORY)


def evaluate(target: Target, raced: Mapping[str, Race]) -> Outcome:
    """Compares a target with what was measured on one kind of machine.

    Args:
      target: The target.
      raced: By `races.name_of`, all of the same hardware.
    """
    race = raced.get(target.workload)
    if target.over == RESIDENT:
        # A run of the workload `input` measures this alone, and has precedence.
        race = raced.get(f"input-{target.workload}", race)
    if target.measure in INFERENCE:
        race = raced.get(f"inference-{target.workload}")
    found = races.ratio(race, target.arm, target.over, target.measure)
    return Outcome(target, found, _verdict(target, found))


def _verdict(target: Target, found: Found) -> str:
    if found.median is None:
        return _verdict_of_interval(target, found.interval) or found.why
    share = found.median / target.ratio
    missed_by = 1 - share if target.is_minimum else share - 1
    return REACHED if missed_by <= 0 else missed(missed_by)


def _verdict_of_interval(target: Target, interval: tuple[float, float] | None) -> str:
    """Returns the verdict where only the interval is known; "" if it holds the target."""
    low, high = interval or (0.0, math.inf)
    if low >= target.ratio:
        return REACHED + _BY_INTERVAL
    return MISSED + _BY_INTERVAL if high < target.ratio else ""


def missed(share: float) -> str:
    """Returns the verdict on a target that is missed by a share of it."""
    return f"{MISSED} by {max(share, 0.001):.1%}".replace("%", " %")
