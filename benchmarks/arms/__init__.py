"""The arms, one file each: `benchmarks/arms/<name>.py` has a class `Arm`.

An arm is a contender in a race: one way to train the same net. All have the same small interface,
`ArmProtocol`, and each runs in a process of its own (`benchmarks/race/worker.py`). An arm imports
its own framework alone: the environment of the peers has no TensorFlow.
"""

from __future__ import annotations

import typing

import numpy as np
import numpy.typing as npt

from benchmarks.race.workloads import Task


class ArmProtocol(typing.Protocol):
    """The interface of an arm.

    Attributes:
      claims_bits: Whether the weights must equal those of `keras_fit` bit for bit; without it, the
        loss must be near fit's.
      settings: What the arm chose for itself, for the record.
      is_ceiling: Optional; whether it is a bound that trains on other data and is not compared.
    """

    claims_bits: bool
    settings: dict[str, typing.Any]

    def __init__(self, task: Task) -> None:
        """Builds the model, with the weights of `initial.npz`, and loads the data.

        Raises:
          NotImplementedError: If the arm does not support the workload, precision or device; the
            message is one line.
        """

    def run(self, num_epochs: int) -> float:
        """Trains whole epochs, waits for the device, and returns the mean training loss.

        Computes loss and accuracy over all steps, as training loops do.
        """

    def weights(self) -> list[npt.NDArray[np.generic]]:
        """Returns all weights, in the order and layout of the Keras model's `get_weights()`."""
