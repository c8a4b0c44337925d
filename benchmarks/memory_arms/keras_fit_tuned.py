"""Keras's `Model.fit` with 32 steps an execution, on a pipeline that parses whole batches."""

from __future__ import annotations

import tensorflow as tf

from benchmarks.memory_arms import keras_fit


class Arm(keras_fit.Arm):
    """See `benchmarks.arms.ArmProtocol`."""

    steps_per_execution = 32

    def _make_batches(self, records: tf.data.Dataset) -> tf.data.Dataset:
        batches = records.batch(self._task.workload.global_batch_size)
        return batches.map(self._parse, num_parallel_calls=tf.data.AUTOTUNE)

    def _parse(self, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found = tf.io.parse_example(record, keras_fit.FEATURES)
        return self._decode(found, (-1, *self._task.workload.input_shape))
