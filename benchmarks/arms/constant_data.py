"""One batch that stays, as a data set that the engine takes: an input that costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

NUM_BATCHES = 1_000_000_000


class ConstantBatches:
    """What the compiled loop asks for its batches; see `engine.protocols.GraphBatches`."""

    num_batches = NUM_BATCHES
    stacks = None

    def __init__(self, batch: Any) -> None:
        """Takes the batch, whose shapes are static."""
        # Variables, so that the graph optimiser cannot compute with the values beforehand.
        self._batch = tf.nest.map_structure(lambda t: tf.Variable(t, trainable=False), batch)
        self.element_spec = tf.nest.map_structure(
            lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), batch
        )

    def seek(self, epoch: int, step: int = 0) -> None:
        """Stays where it is."""

    def reader(self) -> Callable[[tf.Tensor], Any]:
        """Returns offset -> the batch."""
        return lambda offset: tf.nest.map_structure(
            lambda variable: variable.read_value(), self._batch
        )

    def current_step(self) -> tf.Tensor:
        """Returns 0: there is no position."""
        return tf.constant(0, tf.int64)

    def get_stack(self, step: tf.Tensor, number: int) -> Any:
        """There are no stacks."""
        raise AssertionError("stacks is None")

    def advance(self, num_steps: tf.Tensor) -> None:
        """Stays where it is."""


class ConstantDataset(tf.data.Dataset):  # type: ignore[misc]
    """A data set that gives the same batch as often as anybody wants.

    Attributes:
      resident: The same for a loop that makes its batches itself.
    """

    def __init__(self, batch: Any) -> None:
        """Takes the batch, whose shapes are static."""
        self._dataset = tf.data.Dataset.from_tensors(batch).repeat(NUM_BATCHES)
        self.resident = ConstantBatches(batch)
        super().__init__(self._dataset._variant_tensor)

    @property
    def element_spec(self) -> Any:
        """The structure, shapes and dtypes of the batch."""
        return self._dataset.element_spec

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._dataset]
