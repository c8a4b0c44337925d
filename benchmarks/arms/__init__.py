"""The contenders, one file each: `benchmarks/arms/<name>.py` has a class `Arm`.

Every arm has the same small interface, `ArmProtocol`, and runs in a process of its own
(`benchmarks/worker.py`). Only the arm's own framework may be imported by it: the environment of the
peers has no TensorFlow.
"""

from __future__ import annotations

import typing

import numpy as np
import numpy.typing as npt

from benchmarks.race.workloads import Task


class ArmProtocol(typing.Protocol):
    """What an arm does.

    Attributes:
      claims_bits: Whether the weights must equal those of `keras_fit` bit for bit; the others must
        reach its loss.
      settings: What the arm chose for itself, for the record.
      is_ceiling: Optional: whether it is a bound that trains on other data than the others; its
        numbers are not compared.
    """

    claims_bits: bool
    settings: dict[str, typing.Any]

    def __init__(self, task: Task) -> None:
        """Builds the model with `initial.npz` and loads the data; trains nothing that counts.

        Raises:
          NotImplementedError: With one line: the arm does not know this workload or precision.
        """

    def run(self, num_epochs: int) -> float:
        """Trains whole epochs and waits for the device.

        Counts loss and accuracy over all of the epoch, as training loops do, and returns the mean
        training loss.
        """

    def weights(self) -> list[npt.NDArray[np.generic]]:
        """Returns all weights, in the order and layout of the Keras model's `get_weights()`."""
