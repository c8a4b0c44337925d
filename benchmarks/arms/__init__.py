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


class TooSlow(Exception):
    """A few steps took so long that a race would take minutes; the message is one line."""


class ArmProtocol(typing.Protocol):
    """The interface of an arm.

    Attributes:
      bits_of: Name of the arm whose weights these must equal bit for bit: "keras_fit" or
        "keras_fit_xla" (these two name themselves). None: free; the loss must be near fit's.
      settings: What the arm chose for itself, for the record.
      is_ceiling: Optional; whether it is a bound that trains on other data and is not compared.
      found: Optional; what the arm found by trial, which another one of its class can be made with:
        `Arm(task, found)`.
    """

    bits_of: str | None
    settings: dict[str, typing.Any]

    def __init__(self, task: Task) -> None:
        """Builds the model, with the weights of `initial.npz`, and loads the data.

        Raises:
          NotImplementedError: If the arm does not support the workload, precision or device; the
            message is one line.
          TooSlow: If the race would take minutes.
        """

    def run(self, num_epochs: int) -> float:
        """Trains whole epochs, waits for the device, and returns the mean training loss.

        Computes loss and accuracy over all steps, as training loops do.
        """

    def weights(self) -> list[npt.NDArray[np.generic]]:
        """Returns all weights, in the order and layout of the Keras model's `get_weights()`."""
