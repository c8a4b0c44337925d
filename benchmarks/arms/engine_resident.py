"""The engine on one batch that lies in memory, again and again: no pipeline, so its ceiling."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import tensorflow as tf

from benchmarks.arms import engine as engine_arm


class Arm(engine_arm.Arm):
    """See `benchmarks.arms.ArmProtocol`."""

    claims_bits = False
    is_ceiling = True

    def _make_dataset(self, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> Any:
        workload = self._task.workload
        size = workload.global_batch_size
        batch = next(iter(super()._make_dataset(x[:size], y[:size])))
        return RepeatedBatch(batch, workload.steps_per_epoch)


class RepeatedBatch(tf.data.Dataset):  # type: ignore[misc]
    """A data set of one batch many times.

    Attributes:
      resident: What `engine.fit` takes batches from in its own graph, where it can.
    """

    def __init__(self, batch: Any, num_batches: int) -> None:
        """Takes the batch as tensors."""
        self._dataset = tf.data.Dataset.from_tensors(batch).repeat(num_batches).prefetch(4)
        self.resident = ResidentBatch(batch, self._dataset.element_spec)
        super().__init__(self._dataset._variant_tensor)

    @property
    def element_spec(self) -> Any:
        """The structure, shapes and dtypes of the batch."""
        return self._dataset.element_spec

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._dataset]


class ResidentBatch:
    """A batch in memory, with the interface of the pipeline's batches."""

    def __init__(self, batch: Any, element_spec: Any) -> None:
        """Takes the batch as tensors."""
        self._batch = batch
        self.element_spec = element_spec

    def seek(self, epoch: int, step: int = 0) -> None:
        """Does nothing: every step has the same batch."""

    def get(self, offset: tf.Tensor) -> Any:
        """Returns the batch; graph mode."""
        return tf.nest.map_structure(tf.identity, self._batch)

    def advance(self, num_steps: tf.Tensor) -> None:
        """Does nothing; graph mode."""
