"""How far two trainings are apart, and how far float32 lets them be.

The number of replicas changes the order in which the examples of a batch are summed, and nothing
else. Two orders of a sum of n terms differ by at most 2 (n - 1) u times the sum of their absolute
values, u = 2**-24 in float32 (Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition,
section 4.2: each order has an error of at most (n - 1) u of it). One such sum a step, over n
examples: after N steps weights may be 2 N n u of their norm apart, as long as a step does not make
the difference larger that is there.

It does where terms cancel or are divided by a root of their squares. How much it does in a model is
measured: one replica trains on the same batches with their examples reversed, which is the same sum
in another order. A tensor that differs by 10 times what it does there, or by 2 N n u, is equal but
for float32; the larger counts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .counts import Count, Result

UNIT_ROUNDOFF = 2.0**-24
MARGIN = 10.0
EQUAL_BITS = "equal bits"


@dataclasses.dataclass(frozen=True)
class Row:
    """A count beside the one that it is compared with.

    Attributes:
      count: What was trained.
      reference: What it is compared with.
      logs: Loss and metrics.
      difference: The largest relative difference of a tensor of weights, in Euclidean norms.
      where: The tensor's path.
      bound: What it may be; 0: the bits are to be equal.
      is_equal: Whether weights, loss and metrics are within their bounds.
    """

    count: Count
    reference: Count
    logs: dict[str, float]
    difference: float
    where: str
    bound: float
    is_equal: bool


def summation_bound(num_steps: int, num_terms: int) -> float:
    """Returns how far weights may be apart, relative to their norm; see the module."""
    return 2 * num_steps * num_terms * UNIT_ROUNDOFF


def relative(a: Any, b: Any) -> float:
    """Returns the Euclidean norm of `a - b` over that of `b`; infinite if only `b` is 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    difference, norm = float(np.linalg.norm(a - b)), float(np.linalg.norm(b))
    if math.isnan(difference):
        return math.inf
    return difference / norm if norm else (math.inf if difference else 0.0)


def differences(found: Result, expected: Result) -> dict[str, float]:
    """Returns the relative difference of each tensor, and of loss and metrics, by name."""
    assert found.weights.keys() == expected.weights.keys(), "the same model"
    tensors = {name: relative(a, expected.weights[name]) for name, a in found.weights.items()}
    return tensors | {name: relative(a, expected.logs[name]) for name, a in found.logs.items()}


def judge(results: Mapping[Count, Result], bound: float, num_examples: int) -> list[Row]:
    """Compares replicas with one replica, and workers with as many replicas if these were run.

    Args:
      results: What each count ended with; one replica is among them, and one reversed.
      bound: See `summation_bound`.
      num_examples: Of the training: a metric that counts may count one example otherwise.
    """
    one = Count(1)
    floor = differences(results[Count(1, reverses=True)], results[one])
    bounds = {name: max(bound, MARGIN * value) for name, value in floor.items()}
    for name in results[one].logs:
        bounds[name] += 1 / num_examples
    rows = []
    for count, result in results.items():
        twin = Count(count.num_replicas)
        is_bitwise = count.by_workers and twin in results
        reference = twin if is_bitwise else one
        limits = dict.fromkeys(bounds, 0.0) if is_bitwise else bounds
        rows.append(_compare(count, reference, result, results[reference], limits))
    return rows


def _compare(
    count: Count, reference: Count, found: Result, expected: Result, bounds: Mapping[str, float]
) -> Row:
    apart = differences(found, expected)
    # Of the tensors, the one that is furthest beyond its bound, or nearest to it.
    worst = max(found.weights, key=lambda name: apart[name] / (bounds[name] or 1.0))
    is_equal = all(apart[name] <= bounds[name] for name in apart)
    return Row(count, reference, found.logs, apart[worst], worst, bounds[worst], is_equal)


def to_table(rows: Sequence[Row]) -> str:
    """Returns the rows as a table of Markdown."""
    names = sorted(rows[0].logs, key=lambda name: (name != "loss", name))
    head = ["trained on", *names, "compared with", "weights apart", "allowed", "tensor", ""]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        allowed = f"{row.bound:.1e}" if row.bound else EQUAL_BITS
        apart = f"{row.difference:.1e}" if row.difference else EQUAL_BITS
        verdict = "equal" if row.is_equal else "**differs**"
        logs = [f"{row.logs[name]:.7g}" for name in names]
        compared = "-" if row.count == row.reference else str(row.reference)
        lines.append([str(row.count), *logs, compared, apart, allowed, row.where, verdict])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
