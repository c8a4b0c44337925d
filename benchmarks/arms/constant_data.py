"""One constant batch as a dataset for the engine: an input that costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

NUM_BATCHES = 1_000_000_000


class ConstantBatches:
    """The same batch at every step, for the compiled loop; see `engine.protocols.GraphBatches`.

    Args:
      batch: Has static shapes.
    """

    num_batches = NUM_BATCHES
    stacks = None

    def __init__(self, batch: Any) -> None:
        # Variables, so that the graph optimizer does not compute with the values in advance.
        self._batch = tf.nest.map_structure(lambda t: tf.Variable(t, trainable=False), batch)
        self.element_spec = tf.nest.map_structure(
            lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), batch
        )

    def seek(self, epoch: int, step: int = 0) -> None:
        """Does nothing: there is no position."""

    def reader(self) -> Callable[[tf.Tensor], Any]:
        """Returns a function of any step to the batch."""
        return lambda step: tf.nest.map_structure(
            lambda variable: variable.read_value(), self._batch
        )

    def current_step(self) -> tf.Tensor:
        """Returns 0: there is no position."""
        return tf.constant(0, tf.int64)

    def get_stack(self, step: tf.Tensor, number: int) -> Any:
        """Must not be called: there are no stacks."""
        raise AssertionError("stacks is None")

    def advance(self, num_steps: tf.Tensor) -> None:
        """Does nothing: there is no position."""


class ConstantDataset(tf.data.Dataset):  # type: ignore[misc]
    """A dataset of the same batch, again and again.

    Args:
      batch: Has static shapes.

    Attributes:
      resident: The same batch for a loop that makes its batches in the graph.
    """

    def __init__(self, batch: Any) -> None:
        self._dataset = tf.data.Dataset.from_tensors(batch).repeat(NUM_BATCHES)
        self.resident = ConstantBatches(batch)
        super().__init__(self._dataset._variant_tensor)

    @property
    def element_spec(self) -> Any:
        """Structure, shapes and dtypes of the batch."""
        return self._dataset.element_spec

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._dataset]
