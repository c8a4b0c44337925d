"""The common part of the TensorFlow arms: the runtime, the model and the arrays."""

from __future__ import annotations

import contextlib
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from benchmarks.race import keras_models, weights
from benchmarks.race.workloads import Task

Array = npt.NDArray[np.generic]


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
    model = keras_models.build(task.workload)
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
