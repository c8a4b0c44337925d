"""The models in JAX, as functions of a list of weights in Keras's order and layout."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.arms import jax_device
from benchmarks.race.workloads import LAYER_NORM_EPSILON, Task

_WEIGHTS_PER_BLOCK = 16
_CONV_DROPOUT, _DENSE_DROPOUT = 0.25, 0.5

_DTYPES = {"float32": jnp.float32, "tf32": jnp.float32, "mixed_bfloat16": jnp.bfloat16}

# (weights and images or tokens in the compute dtype, key of the step) -> inputs of the head
Body = Callable[[Sequence[jax.Array], jax.Array, jax.Array], jax.Array]
# (float32 weights, images in [0, 1] or tokens, key of the step) -> float32 logits
Forward = Callable[[Sequence[jax.Array], jax.Array, jax.Array], jax.Array]
# (images, kernel) -> images
Convolve = Callable[[jax.Array, jax.Array], jax.Array]


def dense(weights: Sequence[jax.Array], x: jax.Array, key: jax.Array) -> jax.Array:
    """Computes the hidden layers."""
    x = x.reshape(x.shape[0], -1)
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        x = jax.nn.relu(x @ kernel + bias)
    return x


def cnn(
    weights: Sequence[jax.Array],
    x: jax.Array,
    key: jax.Array,
    *,
    convolve: Convolve,
    drops: bool,
) -> jax.Array:
    """Computes the tutorial's convolutional net, with dropout if it drops."""
    kernel1, bias1, kernel2, bias2, kernel, bias = weights
    x = jax.nn.relu(convolve(x, kernel1) + bias1)
    x = jax.nn.relu(convolve(x, kernel2) + bias2)
    size, height, width, channels = x.shape
    x = x.reshape(size, height // 2, 2, width // 2, 2, channels).max((2, 4))
    conv_key, dense_key = jax.random.split(key)
    x = x.reshape(size, -1)
    x = dropout(x, _CONV_DROPOUT, conv_key) if drops else x
    x = jax.nn.relu(x @ kernel + bias)
    return dropout(x, _DENSE_DROPOUT, dense_key) if drops else x


def lstm(weights: Sequence[jax.Array], x: jax.Array, key: jax.Array) -> jax.Array:
    """Computes a recurrent layer over the rows of an image, with one product for all inputs."""
    kernel, recurrent, bias = weights
    size, num_rows, *_ = x.shape
    rows = x.reshape(size, num_rows, -1).swapaxes(0, 1)

    def step(
        state: tuple[jax.Array, jax.Array], of_row: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        hidden, cell = state
        gates = jnp.split(of_row + hidden @ recurrent, 4, axis=1)
        inside, forget, candidate, outside = gates
        cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(inside) * jnp.tanh(candidate)
        return (jax.nn.sigmoid(outside) * jnp.tanh(cell), cell), None

    zeros = jnp.zeros((size, recurrent.shape[0]), x.dtype)
    (hidden, _), _ = lax.scan(step, (zeros, zeros), rows @ kernel + bias)
    return hidden


def transformer(weights: Sequence[jax.Array], x: jax.Array, key: jax.Array) -> jax.Array:
    """Computes pre-norm blocks over embedded tokens, and the mean over positions."""
    tokens, positions, *rest, gamma, beta = weights
    x = tokens[x] + positions
    for start in range(0, len(rest), _WEIGHTS_PER_BLOCK):
        x = _block(rest[start : start + _WEIGHTS_PER_BLOCK], x)
    return _layer_norm(x, gamma, beta).mean(1)


def _block(weights: Sequence[jax.Array], x: jax.Array) -> jax.Array:
    gamma1, beta1, *attention, gamma2, beta2, kernel1, bias1, kernel2, bias2 = weights
    x = x + _attention(attention, _layer_norm(x, gamma1, beta1))
    hidden = _layer_norm(x, gamma2, beta2) @ kernel1 + bias1
    return x + jax.nn.gelu(hidden, approximate=False) @ kernel2 + bias2


def _attention(weights: Sequence[jax.Array], x: jax.Array) -> jax.Array:
    *inputs, kernel, bias = weights
    query, key, value = (
        jnp.einsum("btw,whd->bthd", x, inputs[i]) + inputs[i + 1] for i in (0, 2, 4)
    )
    x = jax.nn.dot_product_attention(query, key, value)
    return jnp.einsum("bthd,hdw->btw", x, kernel) + bias


def _layer_norm(x: jax.Array, gamma: jax.Array, beta: jax.Array) -> jax.Array:
    # Mean and variance in float32, as in Keras.
    values = x.astype(jnp.float32)
    mean, variance = values.mean(-1, keepdims=True), values.var(-1, keepdims=True)
    normal = (values - mean) * lax.rsqrt(variance + LAYER_NORM_EPSILON)
    return normal.astype(x.dtype) * gamma + beta


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns a convolution without padding by XLA's own operation.

    On a CPU, it may take much longer inside a loop than outside.
    """
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=layout)


def multiply_patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns a convolution without padding as one matrix product."""
    height, width, channels, filters = kernel.shape
    _, rows, columns, _ = x.shape
    rows, columns = rows - height + 1, columns - width + 1
    shifted = [x[:, i : i + rows, j : j + columns] for i in range(height) for j in range(width)]
    patches = jnp.concatenate(shifted, axis=-1)
    return patches @ kernel.reshape(height * width * channels, filters)


CONVOLUTIONS: dict[str, Convolve] = {"lax.conv": convolve, "patches": multiply_patches}


def dropout(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Zeroes a share `rate` of the values and scales the others up."""
    is_kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(is_kept, x / (1 - rate), 0)


BODIES: dict[str, Callable[..., jax.Array]] = {
    "dense": dense, "cnn": cnn, "lstm": lstm, "transformer": transformer
}  # fmt: skip


def make_forward(task: Task, convolution: str | None = None) -> Forward:
    """Returns the workload's model: a body in the task's precision and a head in float32.

    Args:
      task: Names the workload and the precision.
      convolution: One of `CONVOLUTIONS`, for the convolutional net.

    Raises:
      NotImplementedError: If these arms do not support the model, precision or device.
    """
    name = task.workload.model
    is_known = name in BODIES and task.precision in _DTYPES
    if not is_known or (task.device == "cpu" and task.precision == "tf32"):
        raise NotImplementedError(f"no JAX model {name!r} on {task.device} in {task.precision}")
    jax_device.configure(task)
    body: Body = BODIES[name]
    dtype = _DTYPES[task.precision]
    if convolution is not None:
        how = CONVOLUTIONS[convolution]
        body = functools.partial(cnn, convolve=how, drops=task.dropout)

    def forward(weights: Sequence[jax.Array], x: jax.Array, key: jax.Array) -> jax.Array:
        *body_weights, kernel, bias = weights
        if jnp.issubdtype(x.dtype, jnp.floating):
            x = x.astype(dtype)
        hidden = body([weight.astype(dtype) for weight in body_weights], x, key)
        return hidden.astype(jnp.float32) @ kernel + bias

    return forward
