"""The common part of the TensorFlow arms: the runtime, the model and the arrays."""

from __future__ import annotations

import contextlib
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras.src.trainers.data_adapters import array_data_adapter

from benchmarks.race import keras_models, weights
from benchmarks.race.workloads import Task

Array = npt.NDArray[np.generic]

NUM_PROBE_STEPS = 4


def configure(task: Task) -> None:
    """Sets seed, precision and the number of devices. Call it before the first operation."""
    gpus = tf.config.list_physical_devices("GPU")
    tf.config.set_visible_devices(gpus[: task.num_devices], "GPU")
    if task.device == "cpu" and task.num_devices > 1:
        (cpu,) = tf.config.list_physical_devices("CPU")
        logical = [tf.config.LogicalDeviceConfiguration() for _ in range(task.num_devices)]
        tf.config.set_logical_device_configuration(cpu, logical)
    tf.config.experimental.enable_tensor_float_32_execution(task.precision == "tf32")
    # Keras knows no TensorFloat-32: it is a way in which GPUs multiply float32.
    keras.config.set_dtype_policy("float32" if task.precision == "tf32" else task.precision)
    keras.utils.set_random_seed(task.seed)
    if task.deterministic:
        tf.config.experimental.enable_op_determinism()


def set_threads(
    *, intra_op_threads: int | None = None, inter_op_threads: int | None = None
) -> None:
    """Sets the threads of this process; None leaves TensorFlow's default.

    Call it before the first operation, and before `configure`. Later, only the same ones are legal.

    Raises:
      RuntimeError: If TensorFlow has started with others.
    """
    if intra_op_threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(intra_op_threads)
    if inter_op_threads is not None:
        tf.config.threading.set_inter_op_parallelism_threads(inter_op_threads)


def scope(task: Task) -> contextlib.AbstractContextManager[Any]:
    """Returns the scope to build in: of MirroredStrategy for replicas, else an empty one."""
    if not task.has_replicas:
        return contextlib.nullcontext()
    names = [device.name for device in tf.config.list_logical_devices(task.device.upper())]
    context: contextlib.AbstractContextManager[Any] = tf.distribute.MirroredStrategy(names).scope()
    return context


def build_model(task: Task) -> keras.Model:
    """Returns the model with the initial weights and the seed's dropout."""
    # Dropout layers derive their seeds from the global one when they are built.
    keras.utils.set_random_seed(task.seed)
    model = keras_models.build(task.workload, dropout=task.dropout)
    model.set_weights(weights.load(task.directory / "initial.npz"))
    return model


def load_train_arrays(task: Task) -> tuple[Array, Array]:
    """Returns x as bytes or token ids, and integer labels, as they are in the files."""
    return np.load(task.directory / "x_train.npy"), np.load(task.directory / "y_train.npy")


def load_fit_arrays(task: Task) -> tuple[Array, Array]:
    """Returns x in [0, 1] and one-hot labels, both float32, as people pass them to fit.

    Under replicas they are in the order of an epoch, for `fit` with shuffle=False.
    """
    x, y = load_train_arrays(task)
    if task.has_replicas:
        # fit takes a batch to build the model there, after which a shuffled order is another one.
        order = np.load(task.directory / "order.npy")
        x, y = x[order], y[order]
    if x.dtype == np.uint8:
        x = x / np.float32(255)
    return x, keras.utils.to_categorical(y, task.workload.num_classes).astype(np.float32)


def make_fit_dataset(
    task: Task, x: Array, y: Array | None = None, *, shuffle: bool
) -> tf.data.Dataset:
    """Returns the batches that Keras makes of arrays, without TensorFlow's autotuner.

    The thread of the autotuner may hold up the end of an epoch until it wakes, after 10 ms, 30, 70,
    and so on, twice the time at each wake: a run takes up to twice as long, or not, by chance. Made
    once for all runs, as the engine's dataset is.

    Args:
      task: Names the batch size.
      x: Inputs.
      y: Labels; None for `predict`.
      shuffle: As in `fit`.
    """
    size = task.workload.global_batch_size
    adapter = array_data_adapter.ArrayDataAdapter(x, y, batch_size=size, shuffle=shuffle)
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = adapter.get_tf_dataset().with_options(options)
    # Where fit does not know the length, it begins a step more, which runs what needs no batch.
    return dataset.apply(tf.data.experimental.assert_cardinality(adapter.num_batches))
