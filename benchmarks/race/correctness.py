"""Correct or void: an arm that does not compute what fit computes has no speed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.race import weights
from benchmarks.race.harness import ArmResult

REFERENCE = "keras_fit"
# For arms that do not claim fit's bits: relative distance from fit's mean loss.
LOSS_TOLERANCE = 0.02


def void_wrong_arms(
    results: Sequence[ArmResult], initial: Path, reference_name: str = REFERENCE
) -> None:
    """Voids every arm that is not correct, with the reason in one line.

    Each arm must have changed its weights. An arm that claims fit's bits must also have all of
    fit's weights; the others must have fit's mean loss over all steps within 2 %. A ceiling trains
    on other data and is not compared.

    Args:
      results: Of one race; changed in place.
      initial: File of the weights that all arms started from.
      reference_name: The arm that is correct by definition.
    """
    reference = next((r for r in results if r.name == reference_name), None)
    # The reference first: if it is void, no other arm can be shown to be right.
    for result in sorted(results, key=lambda r: r is not reference):
        if not result.is_ok:
            continue
        reason = _fault(result, reference, initial)
        if reason is not None:
            result.fail("void", reason)


def _fault(result: ArmResult, reference: ArmResult | None, initial: Path) -> str | None:
    if not all(map(math.isfinite, result.losses)):
        return "a loss is not finite"
    start, end = weights.load(initial), weights.load(result.weights[-1])
    if weights.shapes(end) != weights.shapes(start):
        return "the weights have other shapes or dtypes than the model's"
    if weights.first_difference(end, start) is None:
        return "nothing was trained: the weights are those at the start"
    if result.is_ceiling or result is reference:
        return None
    if reference is None or not reference.is_ok:
        return "nothing to compare with: fit gave no result"
    fault = _fault_in_bits(result, reference) if result.claims_bits else None
    return fault or _fault_in_loss(result, reference)


def _fault_in_bits(result: ArmResult, reference: ArmResult) -> str | None:
    if len(result.weights) != len(reference.weights):
        return "it did not run as often as fit"
    # Equal weights are one file: only what differs is read.
    for index, (one, other) in enumerate(zip(result.weights, reference.weights, strict=True)):
        if one != other:
            difference = weights.first_difference(weights.load(one), weights.load(other))
            return f"other bits than fit: after run {index + 1}, {difference}"
    return None


def _fault_in_loss(result: ArmResult, reference: ArmResult) -> str | None:
    loss, wanted = statistics.fmean(result.losses), statistics.fmean(reference.losses)
    if abs(loss - wanted) > LOSS_TOLERANCE * abs(wanted):
        return f"mean loss {loss:.4g}, more than 2 % from fit's {wanted:.4g}"
    return None
