"""The host's memory during a run: its peak, and whether it grows with the steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradloop.machine import peak_memory_bytes, resident_bytes

SAMPLE_SECS = 1.0
# What a run must have grown by, and in how many samples, before anybody is told of it.
SUSPICIOUS_BYTES = 32 * 2**20
SUSPICIOUS_SAMPLES = 8
_MAX_SAMPLES = 1 << 12

Sample = tuple[int, int]


class MemoryWatch:
    """Takes the resident memory of this process now and then."""

    def __init__(
        self,
        read_bytes: Callable[[], int | None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Takes nothing yet.

        Args:
          read_bytes: Returns the resident memory now; default: of this process.
          clock: In seconds.
        """
        self._read_bytes = read_bytes or resident_bytes
        self._clock = clock
        self._period_secs = SAMPLE_SECS
        self._next_at = clock()
        self.samples: list[Sample] = []

    def sample(self, num_steps: int) -> None:
        """Takes a sample if the last one is a second old.

        Args:
          num_steps: Training steps so far.
        """
        now = self._clock()
        if now < self._next_at:
            return
        self._next_at = now + self._period_secs
        num_bytes = self._read_bytes()
        if num_bytes is not None:
            self.samples.append((num_steps, num_bytes))
        if len(self.samples) > _MAX_SAMPLES:  # more than an hour: every other one will do
            self.samples, self._period_secs = self.samples[::2], 2 * self._period_secs

    def to_dict(self) -> dict[str, Any]:
        """Returns what summary.json holds: the slope is None where there are too few samples."""
        return {
            "peak_bytes": peak_memory_bytes(),
            "slope_bytes_per_step": memory_slope(self.samples),
            "num_samples": len(self.samples),
            "is_growing": is_growing(self.samples),
        }


def memory_slope(samples: Sequence[Sample]) -> float | None:
    """Returns the bytes a step by which memory grows: least squares, warm-up left out.

    Args:
      samples: Steps and bytes, in their order. The first quarter is warm-up.
    """
    steps, num_bytes = _after_warm_up(samples)
    if len(np.unique(steps)) < 3:  # two points have a slope whatever they are
        return None
    deviations = steps - steps.mean()
    return float(deviations @ (num_bytes - num_bytes.mean()) / (deviations @ deviations))


def is_growing(samples: Sequence[Sample]) -> bool:
    """Returns whether memory grows as a leak makes it: much, and until the end.

    A cache that fills, or an allocator that takes its blocks in time, grows and stays.
    """
    slope = memory_slope(samples)
    if slope is None or len(samples) < SUSPICIOUS_SAMPLES:
        return False
    steps, num_bytes = _after_warm_up(samples)
    thirds = [float(np.median(part)) for part in np.array_split(num_bytes, 3)]
    grows_on = thirds[2] - thirds[1] > (thirds[1] - thirds[0]) / 2 > 0
    return grows_on and slope * float(steps[-1] - steps[0]) > SUSPICIOUS_BYTES


def format_growth(memory: dict[str, Any]) -> str:
    """Returns words on what `MemoryWatch.to_dict` found suspicious, or nothing."""
    if not memory.get("is_growing"):
        return ""
    return f", growing by {memory['slope_bytes_per_step']:,.0f} bytes a step: is something leaking?"


def _after_warm_up(samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(samples[len(samples) // 4 :], np.float64).reshape(-1, 2)
    return values[:, 0], values[:, 1]
