"""Keras's `Model.fit` with its defaults on a tf.data pipeline as TensorFlow's guide has it."""

from __future__ import annotations

import queue
import threading
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from benchmarks.arms import keras_fit, tf_runtime
from benchmarks.memory_arms import LARGE, MEMORY_SHARE, SMALL, limit_memory
from benchmarks.race.workloads import Task

FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([], tf.int64),
}
# Of the memory that is allowed. Threads, batches and the buffers of two epochs need the rest: with
# half of it, fit died in its first epochs.
_BUFFER_SHARE = 1 / 8
# As the engine's. AUTOTUNE chooses a number that knows nothing of the limit.
_PREFETCH = 4
_ENDLESS = 10**6


class OneCall(keras.callbacks.Callback):
    """One call of `fit`, as a person makes it, whose epochs are the runs: it waits between them.

    A call for each run would leave iterators behind, with their buffers, and fit does not.

    Args:
      dataset: What is trained on.
    """

    def __init__(self, dataset: tf.data.Dataset) -> None:
        super().__init__()
        self._dataset = dataset
        self._losses: queue.Queue[float | Exception] = queue.Queue()
        self._may_go_on = threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    def run_epoch(self, model: keras.Model) -> float:
        """Lets `fit` train an epoch and returns the loss; what it raises is raised here."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._fit, args=[model], daemon=True)
            self._thread.start()
        else:
            self._may_go_on.release()
        loss = self._losses.get()
        if isinstance(loss, Exception):
            raise loss
        return loss

    def _fit(self, model: keras.Model) -> None:
        try:
            model.fit(self._dataset, epochs=_ENDLESS, shuffle=False, verbose=0, callbacks=[self])
        except Exception as error:
            self._losses.put(error)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Hands over the loss, and waits for the next run."""
        self._losses.put((logs or {})["loss"])
        self._may_go_on.acquire()


class Arm:
    """See `benchmarks.arms.ArmProtocol`."""

    bits_of = None
    steps_per_execution = 1

    def __init__(self, task: Task) -> None:
        tf_runtime.configure(task)
        self._task = task
        self._buffer_size = int(task.workload.num_examples * MEMORY_SHARE * _BUFFER_SHARE)
        self._model = tf_runtime.build_model(task)
        keras_fit.compile_model(self._model, task, steps_per_execution=self.steps_per_execution)
        self._model.fit(self._make_dataset(SMALL), shuffle=False, verbose=0)
        self.settings: dict[str, Any] = limit_memory(task) | {
            "steps_per_execution": self.steps_per_execution, "buffer_size": self._buffer_size
        }  # fmt: skip
        self._call = OneCall(self._make_dataset(LARGE))

    def _make_dataset(self, name: str) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(str(self._task.directory / name))
        # Before they are parsed: as bytes they are smallest, and more of them fit.
        batches = self._make_batches(records.shuffle(self._buffer_size)).prefetch(_PREFETCH)
        # The thread of the autotuner may hold up the end of an epoch until it wakes, after a pause
        # for up to 40 s. Without it, a map has as many threads as there are cores.
        options = tf.data.Options()
        options.autotune.enabled = False
        return batches.with_options(options)

    def _make_batches(self, records: tf.data.Dataset) -> tf.data.Dataset:
        examples = records.map(self._parse, num_parallel_calls=tf.data.AUTOTUNE)
        return examples.batch(self._task.workload.global_batch_size)

    def _parse(self, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found = tf.io.parse_single_example(record, FEATURES)
        return self._decode(found, self._task.workload.input_shape)

    def _decode(self, found: Any, shape: tuple[int, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = tf.reshape(tf.io.decode_raw(found["image"], tf.uint8), shape)
        labels = tf.one_hot(found["label"], self._task.workload.num_classes)
        return tf.cast(pixels, tf.float32) / 255.0, labels

    def run(self, num_epochs: int) -> float:
        """Trains whole epochs and returns the mean training loss."""
        return float(np.mean([self._call.run_epoch(self._model) for _ in range(num_epochs)]))

    def weights(self) -> list[npt.NDArray[np.generic]]:
        """Returns the model's weights."""
        weights: list[npt.NDArray[np.generic]] = self._model.get_weights()
        return weights
