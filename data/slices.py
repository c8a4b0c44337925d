"""What one of several workers makes of each batch: the parts of its own replicas, and no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .epoch_dataset import map_batches
from .resident import Epoch

SliceIndices = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def slices_maker(
    make_steps: Callable[[], tf.data.Dataset],
    slice_indices: SliceIndices,
    make_batch: Callable[[SliceIndices, tf.Tensor, Epoch], Any],
    parallel: int,
    options: tf.data.Options,
) -> Callable[[tf.distribute.InputContext], tf.data.Dataset]:
    """Returns a function of an input context to a dataset of parts of batches.

    Args:
      make_steps: Returns a dataset of `(step, epoch)`.
      slice_indices: `(order, step)` to the indices of the examples of a batch.
      make_batch: Makes a batch of the indices that a function like it gives.
      parallel: How many parts are made at a time.
      options: Of the dataset.
    """

    def slices(context: tf.distribute.InputContext) -> tf.data.Dataset:
        num_replicas = context.num_replicas_in_sync
        num_local = num_replicas // context.num_input_pipelines
        first = context.input_pipeline_id * num_local

        def replicas(step: tf.Tensor, epoch: Epoch) -> tf.data.Dataset:
            return tf.data.Dataset.range(first, first + num_local).map(lambda r: (step, epoch, r))

        def make_part(step: tf.Tensor, epoch: Epoch, replica: tf.Tensor) -> Any:
            def of_replica(order: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
                return _part(slice_indices(order, step), replica, num_replicas)

            return make_batch(of_replica, step, Epoch(*epoch))

        parts = make_steps().flat_map(tf.autograph.experimental.do_not_convert(replicas))
        parts = map_batches(parts, make_part, parallel)
        return parts.prefetch(num_local).with_options(options)

    return slices


def _part(indices: tf.Tensor, replica: tf.Tensor, num_replicas: int) -> tf.Tensor:
    """Returns the part of one replica, as tf.distribute splits a batch in one process.

    The first parts are full, and the last ones may have less or nothing.
    """
    num_static = indices.shape[0]
    num_examples = tf.size(indices, tf.int64) if num_static is None else num_static
    full = -(-num_examples // num_replicas)
    if num_static is not None and num_static % num_replicas == 0:
        return tf.slice(indices, [replica * full], [full])
    return indices[replica * full : (replica + 1) * full]
