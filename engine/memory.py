"""The host's memory during a run: its peak, and whether it grows with the steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradloop.machine import peak_memory_bytes, resident_bytes

SAMPLE_SECS = 1.0
# A run is reported as growing if it has grown by this much, in this many samples.
SUSPICIOUS_BYTES = 32 * 2**20
SUSPICIOUS_SAMPLES = 8
_MAX_SAMPLES = 1 << 12

Sample = tuple[int, int]


class MemoryWatch:
    """Samples the resident memory of this process, once a second.

    Args:
      read_bytes: Returns the resident memory, or None where it is unknown; default: that of this
        process.
      clock: Returns seconds.

    Attributes:
      samples: Training steps and bytes; every other one of a long run.
    """

    def __init__(
        self,
        read_bytes: Callable[[], int | None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._read_bytes = read_bytes or resident_bytes
        self._clock = clock
        self._period_secs = SAMPLE_SECS
        self._next_at = clock()
        self.samples: list[Sample] = []

    def sample(self, num_steps: int) -> None:
        """Takes a sample if it is time for one.

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
        if len(self.samples) > _MAX_SAMPLES:  # after more than an hour
            self.samples, self._period_secs = self.samples[::2], 2 * self._period_secs

    def to_dict(self) -> dict[str, Any]:
        """Returns what summary.json holds; the slope is None if there are too few samples."""
        return {
            "peak_bytes": peak_memory_bytes(),
            "slope_bytes_per_step": memory_slope(self.samples),
            "num_samples": len(self.samples),
            "is_growing": is_growing(self.samples),
        }


def memory_slope(samples: Sequence[Sample]) -> float | None:
    """Returns by how many bytes a step memory grows, by least squares; None if that is unknown.

    Args:
      samples: Steps and bytes, in order. The first quarter is warm-up and left out.
    """
    steps, num_bytes = _after_warm_up(samples)
    if len(np.unique(steps)) < 3:  # two points have a slope whatever they are
        return None
    deviations = steps - steps.mean()
    return float(deviations @ (num_bytes - num_bytes.mean()) / (deviations @ deviations))


def is_growing(samples: Sequence[Sample]) -> bool:
    """Returns whether memory grows as with a leak: by much, and until the end.

    A cache that fills up, or an allocator that takes its blocks early, grows and then stays.
    """
    slope = memory_slope(samples)
    if slope is None or len(samples) < SUSPICIOUS_SAMPLES:
        return False
    steps, num_bytes = _after_warm_up(samples)
    thirds = [float(np.median(part)) for part in np.array_split(num_bytes, 3)]
    grows_on = thirds[2] - thirds[1] > (thirds[1] - thirds[0]) / 2 > 0
    return grows_on and slope * float(steps[-1] - steps[0]) > SUSPICIOUS_BYTES


def format_growth(memory: dict[str, Any]) -> str:
    """Returns a warning if `MemoryWatch.to_dict` found that memory grows, else nothing."""
    if not memory.get("is_growing"):
        return ""
    return f", growing by {memory['slope_bytes_per_step']:,.0f} bytes a step: is something leaking?"


def _after_warm_up(samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(samples[len(samples) // 4 :], np.float64).reshape(-1, 2)
    return values[:, 0], values[:, 1]
