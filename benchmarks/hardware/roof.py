"""What the machine can do at the most: matrix products and memory, measured in a few seconds.

The matrix peak is that of TensorFlow's own `MatMul`, the best over some sizes. The memory's is that
of an addition in place over arrays that no cache holds: it reads two arrays and writes one, all of
which counts. (A plain copy would also read what it overwrites, and nobody counts that.)
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

# Small enough for a slow machine's first try, large enough to fill a GPU.
_SIZES = (512, 1024, 2048, 4096, 8192)
# Beyond the last-level caches of servers, which reach some hundred megabytes.
_COPY_BYTES = 512 * 2**20
_MIN_CALLS = 5
_MAX_CALLS = 50


def measure_roof(
    precisions: Sequence[str] = ("float32", "bfloat16"),
    secs: float = 4.0,
    *,
    sizes: Sequence[int] = _SIZES,
    copy_bytes: int = _COPY_BYTES,
) -> dict[str, Any]:
    """Measures the machine's peaks on the device that TensorFlow chooses.

    Args:
      precisions: Types to multiply in; "tf32" is float32 with TensorFloat-32 products, on a GPU.
      secs: About how long it may take. A type that the processor lacks may take longer.
      sizes: Rows and columns of the square matrices, in rising order.
      copy_bytes: Of each of the two arrays.

    Returns:
      `{"matmul_flops_per_sec": {precision: number}, "copy_bytes_per_sec": number}`.
    """
    share = secs / (len(precisions) + 1)
    return {
        "matmul_flops_per_sec": {
            precision: _matmul_peak(precision, share, sizes) for precision in precisions
        },
        "copy_bytes_per_sec": _memory_peak(copy_bytes, share),
    }


def _matmul_peak(precision: str, secs: float, sizes: Sequence[int]) -> float:
    """Returns the best median over the sizes; one that would take too long ends them."""
    best = 0.0
    deadline = time.perf_counter() + secs
    was_allowed = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
    try:
        for index, size in enumerate(sizes):
            left = deadline - time.perf_counter()
            num_flops = 2 * size**3
            if best and _MIN_CALLS * num_flops / best > left:
                break
            share = left / (len(sizes) - index)
            best = max(best, num_flops / _median_secs(_matmul(precision, size), share))
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(was_allowed)
    return best


def _matmul(precision: str, size: int) -> Callable[[], Any]:
    dtype = tf.float32 if precision == "tf32" else tf.as_dtype(precision)
    left = tf.cast(tf.random.stateless_uniform([size, size], (0, 1)), dtype)
    right = tf.cast(tf.random.stateless_uniform([size, size], (0, 2)), dtype)
    # Captured tensors and not constants, which TensorFlow would multiply once and for all.
    product = tf.function(lambda: tf.matmul(left, right), autograph=False, jit_compile=False)

    def call() -> Any:
        # A single number is fetched: that waits for the device, and copies next to nothing.
        return product()[0, 0].numpy()

    return call


def _memory_peak(num_bytes: int, secs: float) -> float:
    """Returns bytes read and written a second."""
    target = tf.Variable(tf.zeros([num_bytes // 4]), trainable=False)
    addend = tf.fill([num_bytes // 4], 1e-3)

    @tf.function(autograph=False, jit_compile=False)
    def add() -> tf.Tensor:
        target.assign_add(addend, read_value=False)
        return target[:1]

    return 3 * num_bytes / _median_secs(lambda: add().numpy(), secs)


def _median_secs(call: Callable[[], Any], secs: float) -> float:
    """Returns the median time of a call, after one that does not count."""
    call()
    times: list[float] = []
    started_at = time.perf_counter()
    while len(times) < _MIN_CALLS or (
        len(times) < _MAX_CALLS and time.perf_counter() - started_at < secs
    ):
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return statistics.median(times)
