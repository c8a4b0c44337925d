"""tune: measures how a training runs fastest on this machine, in about two minutes.

Each candidate takes turns with the best one of its class so far, in short windows within seconds:
this one measurement is what the table shows, and what decides. The first of a class takes turns
with the defaults. Candidates have states and datasets of their own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Sequence

from .. import step as step_lib
from ..config import TrainConfig
from ..options import ConfigError
from ..replicated_step import StepFn
from .bench import Bench, Changes, MakeDataset, Makers, MakeState, TrialInProcess
from .choice import CHOICES, OF_PROCESSES, Bits, Measurement, Tuning, choose

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
            # First, since the time may end: where steps are long, it gains the most.
            ({"compile_update": True},),
            ({"steps_per_execution": 1}, {"steps_per_execution": 32}),
            ({"input": "streamed"}, {"input": "streamed", "prefetch": 16}),
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
      config: What the trials vary. Of the fields that they try, only `precision` and the numbers of
        threads are read.
      train_step: As in `fit`.
      trial_in_process: Returns the trial of a config with some changes in a new process. Numbers of
        threads need it, because a process cannot change its own, and so does what may change bits,
        which processes compare. None: they are not tried.
      show: Called with a line for each candidate that was tried.
      max_secs: The time for all classes, in equal shares; what one leaves is for the others. No
        candidate of this process begins after the share of its class. Those in processes do all the
        same, if something of their class was measured, beside which they run, and take nothing of
        the shares of others: the search may take longer.
      classes: Those that are searched. What is fastest with fit's bits is tried in the others.

    Raises:
      ConfigError: If the config is for several replicas.
    """
    if config.strategy not in ("default", None):
        raise ConfigError(
            f"tune with strategy={config.strategy!r}: it tunes for one device. Use "
            "strategy='default'."
        )
    makers = Makers(make_state, make_dataset, train_step, trial_in_process)
    with contextlib.ExitStack() as processes:
        ends_at = time.monotonic() + max_secs
        bench = Bench(makers, config, processes)
        result = Tuning([bench.measure_defaults()])
        searched = [bits for bits in CLASSES if bits in classes]
        number = _count_candidates(bench, searched)

        def tell(one: Measurement) -> None:
            words = ": ".join(filter(None, _in_words(one)))
            show(f"trial {len(result.measurements)} of about {number}: {words}")

        for number_left, bits in zip(range(len(searched), 0, -1), searched, strict=True):
            now = time.monotonic()
            share = max(max_secs / len(searched), (ends_at - now) / number_left)
            bench.deadline = now + share
            _try_class(bench, result, bits, tell)
    return result


def _count_candidates(bench: Bench, searched: Sequence[Bits]) -> int:
    """Returns about how many are tried: what is best in one group may be one of another."""
    classes = [CLASSES[bits] for bits in searched]
    counts = [len(bench.candidates(start, group)) for start, groups in classes for group in groups]
    return sum(counts) + len(searched) - 1  # what is best with fit's bits, in the others


def _try_class(
    bench: Bench, result: Tuning, bits: Bits, tell: Callable[[Measurement], None]
) -> None:
    """Measures the candidates of a class, and keeps the fastest."""
    start, groups = CLASSES[bits]
    # What is fastest with fit's bits is tried with the others, too.
    of_fit = {k: v for k, v in result.exact.items() if k not in _OF_FIT_ALONE}
    groups = groups if bits is Bits.FIT else (*groups, (of_fit,))
    best = result.measurements[0]  # the defaults, until something of the class was measured
    tried = [best] if bits is Bits.FIT else []
    for group in groups:
        kept = best.changes if best.bits is bits else start
        for changes in bench.candidates(kept, group):
            if any(changes == one.changes for one in result.measurements):
                continue
            one = bench.measure(changes, best)
            tell(one)
            result.measurements.append(one)
            tried.append(one)
            worse, best = (best, one) if _is_better(one, best, bits) else (one, best)
            bench.forget(worse.changes)
    bench.forget(best.changes)
    choice, note = choose([one for one in tried if one.bits is bits])
    setattr(result, CHOICES[bits], {k: v for k, v in choice.items() if k != "numerics"})
    if note:
        result.notes[CHOICES[bits]] = note


def _is_better(one: Measurement, best: Measurement, bits: Bits) -> bool:
    """Returns whether a row is the best of its class, given the best one before."""
    if one.gain is None or one.bits is not bits:
        return False
    return best.bits is not bits or one.gain > (best.gain or 0.0)


def _in_words(one: Measurement) -> Iterable[str]:
    name, *_, speed, bits, note = one.cells()
    return name, ", ".join(filter(None, [f"{speed}, bits {bits}" if one.gain else "", note]))
