"""Comparison: what two trainings have in common, bit against bit, and how people read it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


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
      other: The fit it was compared with: "fit" or "fit(jit_compile=True)".
    """

    engine_history: dict[str, list[Any]]
    fit_history: dict[str, list[Any]]
    variables: list[VariableDifference]
    first_difference: str | None
    other: str = "fit"

    @property
    def is_equal(self) -> bool:
        """Whether all bits are equal: of every variable and every logged number."""
        return same_history(self.engine_history, self.fit_history) and not any(
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
                f"equal to {self.other}: all bits of {len(self.variables)} variables "
                f"({moved} moved) and all logs."
            )
        return f"DIFFERENT from {self.other}: {self.first_difference}"


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


def same_history(a: Mapping[str, list[Any]], b: Mapping[str, list[Any]]) -> bool:
    """Returns whether two histories are equal; NaN equals NaN."""
    return a.keys() == b.keys() and all(_same_values(a[k], b[k]) for k in a)


def _same_values(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(
        x is not None and y is not None and np.array_equal(x, y, equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )
