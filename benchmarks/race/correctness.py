"""Correct or void: an arm that does not compute what fit computes has no speed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.race import weights
from benchmarks.race.harness import ArmResult

REFERENCE = "keras_fit"
# For arms that do not have an arm's bits: relative distance from fit's mean loss.
LOSS_TOLERANCE = 0.02
_TOLERANCES = {"mixed_bfloat16": 0.05, "mixed_float16": 0.05}
# By how much the loss of the first run may differ where only masks of dropout do: an arm that drops
# nothing is further off.
_MASK_TOLERANCE = 0.1
# Of so many first runs the loss is compared: later it is next to nothing.
_NUM_COMPARED = 5


def tolerance_of(precision: str) -> float:
    """Returns by which share a loss may differ from fit's in a precision."""
    return _TOLERANCES.get(precision, LOSS_TOLERANCE)


def void_wrong_arms(
    results: Sequence[ArmResult],
    initial: Path,
    *,
    reference_name: str = REFERENCE,
    tolerance: float = LOSS_TOLERANCE,
) -> None:
    """Voids every arm that is not correct, with the reason in one line.

    Each arm must have changed its weights. One that has another's bits must have all of its weights
    in all runs that were kept. The others, and those whose bits they are, must have fit's mean loss
    within the tolerance: that of a training without dropout, where the workload has dropout; with
    it, that of the first run must be within a tenth. A ceiling trains on other data and is not
    compared.

    Args:
      results: Of one race; changed in place.
      initial: File of the weights that all arms started from.
      reference_name: The arm that is correct by definition; the last part of a dotted name.
      tolerance: See `tolerance_of`.
    """
    check = _Check(results, initial, reference_name, tolerance)
    # The references first: if one is void, no arm of its bits can be shown to be right.
    ranks = {result.name: check.rank(result) for result in results}
    for result in sorted(results, key=lambda r: ranks[r.name]):
        if not result.is_ok:
            continue
        reason = check.fault(result)
        if reason is not None:
            result.fail("void", reason)


class _Check:
    """What arms are compared with; see `void_wrong_arms`."""

    def __init__(
        self, results: Sequence[ArmResult], initial: Path, reference_name: str, tolerance: float
    ) -> None:
        self._arms = {result.short_name: result for result in results}
        self._start = weights.load(initial)
        self._reference_name = reference_name
        self._tolerance = tolerance

    def rank(self, result: ArmResult) -> int:
        """Returns 0 for the arm that is right by definition, 1 for those whose bits others have."""
        if result.short_name == self._reference_name:
            return 0
        return 1 if result.bits_of == result.short_name else 2

    def fault(self, result: ArmResult) -> str | None:
        """Returns why an arm is void, in one line, or None."""
        fault = self._fault_of_its_own(result)
        if fault is not None or result.is_ceiling or self.rank(result) == 0:
            return fault
        has_bits = result.bits_of is not None and self.rank(result) == 2
        name = (result.bits_of or "") if has_bits else self._reference_name
        other = self._arms.get(name)
        if other is None or not other.is_ok:
            return f"nothing to compare with: {name} gave no result"
        fault = _fault_in_bits(result, other) if has_bits else None
        return fault or self._fault_in_loss(result, other)

    def _fault_of_its_own(self, result: ArmResult) -> str | None:
        if not all(map(math.isfinite, result.losses)):
            return "a loss is not finite"
        end = weights.load(result.weights[-1])
        if weights.shapes(end) != weights.shapes(self._start):
            return "the weights have other shapes or dtypes than the model's"
        if weights.first_difference(end, self._start) is None:
            return "nothing was trained: the weights are those at the start"
        return None

    def _fault_in_loss(self, result: ArmResult, other: ArmResult) -> str | None:
        loss, wanted = result.plain_loss, other.plain_loss
        if loss is None or wanted is None:
            loss, wanted = (statistics.fmean(r.losses[:_NUM_COMPARED]) for r in (result, other))
            return _far("mean loss", loss, wanted, self._tolerance, other)
        return _far("mean loss without dropout", loss, wanted, self._tolerance, other) or _far(
            "first loss with dropout", result.losses[0], other.losses[0], _MASK_TOLERANCE, other
        )


def _far(what: str, loss: float, wanted: float, tolerance: float, other: ArmResult) -> str | None:
    # Not `>`: a loss that is not a number is not near.
    if abs(loss - wanted) <= tolerance * abs(wanted):
        return None
    far = f"more than {tolerance:.0%}".replace("%", " %")
    return f"{what} {loss:.4g}, {far} from the {wanted:.4g} of {other.short_name}"


def _fault_in_bits(result: ArmResult, other: ArmResult) -> str | None:
    if result.kept_runs != other.kept_runs:
        return f"it did not run as often as {other.short_name}"
    # Equal weights are one file: only what differs is read.
    pairs = zip(result.kept_runs, result.weights, other.weights, strict=True)
    for index, one, wanted in pairs:
        if one != wanted:
            difference = weights.first_difference(weights.load(one), weights.load(wanted))
            return f"other bits than {other.short_name}: after run {index + 1}, {difference}"
    return None
