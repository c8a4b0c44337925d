"""The loop that an expert writes by hand in TensorFlow for each model: a bound for the engine.

It uses nothing of Keras: variables, `tf.nn`, a tape, TensorFlow's fused optimizer kernels, and a
whole epoch in one graph that takes its batches from images in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from benchmarks.race import weights as weights_lib
from benchmarks.race.workloads import WEIGHT_DECAY, Task, Workload

_EPSILON = 1e-7
_CONV_DROPOUT, _DENSE_DROPOUT = 0.25, 0.5

# (variables in the compute dtype, images in [0, 1], seed of the step's dropout or None) -> logits
# in float32
Forward = Callable[[Sequence[tf.Tensor], tf.Tensor, tf.Tensor | None], tf.Tensor]


def dense(weights: Sequence[tf.Tensor], x: tf.Tensor, seed: tf.Tensor | None) -> tf.Tensor:
    """Computes dense layers."""
    *hidden, out_kernel, out_bias = weights
    x = tf.reshape(x, [-1, hidden[0].shape[0]])
    for kernel, bias in zip(hidden[::2], hidden[1::2], strict=True):
        x = tf.nn.relu(_affine(x, kernel, bias))
    return _logits(x, out_kernel, out_bias)


def cnn(weights: Sequence[tf.Tensor], x: tf.Tensor, seed: tf.Tensor | None) -> tf.Tensor:
    """Computes the tutorial's convolutional net."""
    kernel1, bias1, kernel2, bias2, kernel, bias, out_kernel, out_bias = weights
    x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel1, 1, "VALID"), bias1))
    x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel2, 1, "VALID"), bias2))
    x = tf.nn.max_pool2d(x, 2, 2, "VALID")
    x = tf.reshape(x, [-1, kernel.shape[0]])
    x = _dropout(x, _CONV_DROPOUT, seed, 0)
    x = _dropout(tf.nn.relu(_affine(x, kernel, bias)), _DENSE_DROPOUT, seed, 1)
    return _logits(x, out_kernel, out_bias)


def lstm(weights: Sequence[tf.Tensor], x: tf.Tensor, seed: tf.Tensor | None) -> tf.Tensor:
    """Computes a recurrent layer over the rows, unrolled, and a dense layer."""
    kernel, recurrent, bias, out_kernel, out_bias = weights
    rows = tf.transpose(x[..., 0], [1, 0, 2])
    num_rows, _, width = rows.shape
    inputs = _affine(tf.reshape(rows, [-1, width]), kernel, bias)
    hidden = cell = tf.zeros([tf.shape(x)[0], recurrent.shape[0]], x.dtype)
    for of_row in tf.split(inputs, num_rows):
        gates = of_row + tf.matmul(hidden, recurrent)
        inside, forget, candidate, outside = tf.split(gates, 4, axis=1)
        cell = tf.sigmoid(forget) * cell + tf.sigmoid(inside) * tf.tanh(candidate)
        hidden = tf.sigmoid(outside) * tf.tanh(cell)
    return _logits(hidden, out_kernel, out_bias)


MODELS: dict[str, Forward] = {"dense": dense, "cnn": cnn, "lstm": lstm}


def _affine(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    return tf.nn.bias_add(tf.matmul(x, kernel), bias)


def _logits(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    # The output layer is float32 in every precision.
    return _affine(tf.cast(x, tf.float32), kernel, bias)


def _dropout(x: tf.Tensor, rate: float, seed: tf.Tensor | None, index: int) -> tf.Tensor:
    if seed is None:
        return x
    return tf.nn.experimental.stateless_dropout(x, rate, seed=tf.stack([seed, index]))


def mean_loss(workload: Workload, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the loss of a batch with integer labels."""
    if workload.loss == "categorical_crossentropy":
        return tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        )
    # Keras computes the same from the outputs of a softmax; see `Workload.loss`.
    targets = tf.one_hot(labels, workload.num_classes)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits))


class RMSprop:
    """RMSprop with Keras's formula, one kernel per variable.

    Args:
      workload: Sets the learning rate.
      variables: To make slots for.
    """

    def __init__(self, workload: Workload, variables: Sequence[tf.Variable]) -> None:
        self._learning_rate = tf.constant(workload.learning_rate)
        self._slots = [[tf.Variable(tf.zeros_like(v)) for _ in range(2)] for v in variables]

    def apply(self, gradients: Sequence[tf.Tensor], variables: Sequence[tf.Variable]) -> None:
        """Updates the variables in place."""
        for gradient, variable, (mean_square, momentum) in zip(
            gradients, variables, self._slots, strict=True
        ):
            tf.raw_ops.ResourceApplyRMSProp(
                var=variable.handle, ms=mean_square.handle, mom=momentum.handle,
                lr=self._learning_rate, rho=0.9, momentum=0.0, epsilon=_EPSILON, grad=gradient,
            )  # fmt: skip


class Adam:
    """Adam with Keras's formula, one kernel per variable.

    Args:
      workload: Sets the learning rate.
      variables: To make slots for.
    """

    def __init__(self, workload: Workload, variables: Sequence[tf.Variable]) -> None:
        self._learning_rate = tf.constant(workload.learning_rate)
        self._powers = [tf.Variable(0.9), tf.Variable(0.999)]
        self._slots = [[tf.Variable(tf.zeros_like(v)) for _ in range(2)] for v in variables]

    def apply(self, gradients: Sequence[tf.Tensor], variables: Sequence[tf.Variable]) -> None:
        """Updates the variables in place."""
        power1, power2 = (power.read_value() for power in self._powers)
        for gradient, variable, (mean, mean_square) in zip(
            gradients, variables, self._slots, strict=True
        ):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle, m=mean.handle, v=mean_square.handle, beta1_power=power1,
                beta2_power=power2, lr=self._learning_rate, beta1=0.9, beta2=0.999,
                epsilon=_EPSILON, grad=gradient,
            )  # fmt: skip
        self._powers[0].assign(power1 * 0.9)
        self._powers[1].assign(power2 * 0.999)


class AdamW(Adam):
    """Adam, before which all variables decay, as in Keras."""

    def apply(self, gradients: Sequence[tf.Tensor], variables: Sequence[tf.Variable]) -> None:
        """Updates the variables in place."""
        kept = 1 - self._learning_rate * WEIGHT_DECAY
        for variable in variables:
            variable.assign(variable * kept, read_value=False)
        super().apply(gradients, variables)


OPTIMIZERS = {"rmsprop": RMSprop, "adam": Adam, "adamw": AdamW}


class Arm:
    """See `benchmarks.arms.ArmProtocol`."""

    bits_of = None

    def __init__(self, task: Task) -> None:
        workload = task.workload
        self._forward = _find_model(task)
        self._workload = workload
        self._has_dropout = task.dropout
        tf.config.experimental.enable_tensor_float_32_execution(task.precision == "tf32")
        self._dtype = tf.bfloat16 if task.precision == "mixed_bfloat16" else tf.float32
        load = lambda name: np.load(task.directory / f"{name}.npy")  # noqa: E731
        self._x, self._y = tf.constant(load("x_train")), tf.constant(load("y_train"))
        batches = load("order").reshape(workload.steps_per_epoch, -1)
        self._batches = tf.constant(batches.astype(np.int32))
        initial = weights_lib.load(task.directory / "initial.npz")
        self._variables = [tf.Variable(array) for array in initial]
        self._optimizer = OPTIMIZERS[workload.optimizer](workload, self._variables)
        self._num_steps_done = tf.Variable(0)
        jit_compile = bool(task.jit_compile)
        self._epoch = tf.function(self._train_epoch, autograph=False, jit_compile=jit_compile)
        self.settings: dict[str, Any] = {"jit_compile": jit_compile}

    def run(self, num_epochs: int) -> float:
        """Trains each epoch in one call and returns the mean training loss."""
        totals = [self._epoch() for _ in range(num_epochs)]
        return float(np.mean([total.numpy() for total, _ in totals]))

    def weights(self) -> list[npt.NDArray[np.generic]]:
        """Returns the variables."""
        return [variable.numpy() for variable in self._variables]

    def _train_epoch(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the mean loss and the accuracy of an epoch."""
        num_steps = self._workload.steps_per_epoch
        start = self._num_steps_done.read_value()

        # The runtime gathers the next batches in parallel: they do not depend on this step.
        def body(step: tf.Tensor, loss: tf.Tensor, num_right: tf.Tensor) -> Any:
            step_loss, step_right = self._train_step(*self._make_batch(step), start + step)
            return step + 1, loss + step_loss, num_right + step_right

        _, loss, num_right = tf.while_loop(
            lambda step, *_: step < num_steps,
            body,
            (tf.constant(0), tf.constant(0.0), tf.constant(0)),
        )
        self._num_steps_done.assign_add(num_steps)
        return loss / num_steps, num_right / self._workload.num_examples

    def _make_batch(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        indices = tf.gather(self._batches, step)
        x = tf.cast(tf.gather(self._x, indices), self._dtype) * (1 / 255)
        return x, tf.gather(self._y, indices)

    def _train_step(
        self, x: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            # Mixed precision: the two weights of the output layer stay float32.
            values = [tf.cast(v, self._dtype) for v in self._variables[:-2]] + [
                v.read_value() for v in self._variables[-2:]
            ]
            logits = self._forward(values, x, seed if self._has_dropout else None)
            loss = mean_loss(self._workload, logits, labels)
        self._optimizer.apply(tape.gradient(loss, self._variables), self._variables)
        right = tf.equal(tf.argmax(logits, axis=1), labels)
        return loss, tf.reduce_sum(tf.cast(right, tf.int32))


def _find_model(task: Task) -> Forward:
    if task.workload.model not in MODELS:
        raise NotImplementedError(f"no loop by hand for the model {task.workload.model!r}")
    if task.num_devices > 1 or task.precision == "mixed_float16":
        raise NotImplementedError("one device, float32, tf32 or mixed_bfloat16 alone")
    return MODELS[task.workload.model]
