"""The machine's roof: its peaks in matrix products and in memory, measured in a few seconds.

The matrix peak is the best of TensorFlow's `MatMul` over some sizes. The memory peak is that of an
in-place addition of arrays that no cache holds: it reads two arrays and writes one, and all three
count. (A plain copy also reads what it overwrites, which is usually not counted.)
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

# The first is small enough for a slow machine, the last large enough to fill a GPU.
_SIZES = (512, 1024, 2048, 4096, 8192)
# More than the last-level caches of servers, which have some hundred megabytes.
_COPY_BYTES = 512 * 2**20
_MIN_CALLS = 5
_MAX_CALLS = 50

TimeCall = Callable[[Callable[[], Any], float], float]


def measure_roof(
    precisions: Sequence[str] = ("float32", "bfloat16"),
    secs: float = 4.0,
    *,
    sizes: Sequence[int] = _SIZES,
    copy_bytes: int = _COPY_BYTES,
) -> dict[str, Any]:
    """Measures the machine's peaks on the device that TensorFlow chooses.

    Args:
      precisions: Dtypes to multiply in; "tf32" is float32 with TensorFloat-32 products, on a GPU,
        and "float32_xla" is float32 with the products of XLA, which has others than oneDNN's.
      secs: Approximate duration; longer for a dtype that the processor does not support.
      sizes: Sizes of the square matrices, ascending.
      copy_bytes: Size of each of the two arrays.

    Returns:
      `{"matmul_flops_per_sec": {precision: number}, "copy_bytes_per_sec": number}`.
    """
    share = secs / (len(precisions) + 1)
    return {
        "matmul_flops_per_sec": {
            precision: matmul_peak(precision, share, sizes) for precision in precisions
        },
        "copy_bytes_per_sec": _memory_peak(copy_bytes, share),
    }


def median_secs(call: Callable[[], Any], secs: float) -> float:
    """Returns the median seconds of a call, after one that does not count."""
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


def matmul_peak(
    precision: str, secs: float, sizes: Sequence[int], time_call: TimeCall = median_secs
) -> float:
    """Returns the most floating-point operations per second over sizes of matrices.

    Args:
      precision: See `measure_roof`.
      secs: Approximate duration; a size that would take longer is left out.
      sizes: See `measure_roof`.
      time_call: `(call, secs)` to the seconds of a call.
    """
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
            best = max(best, num_flops / time_call(_matmul(precision, size), share))
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(was_allowed)
    return best


def _matmul(precision: str, size: int) -> Callable[[], Any]:
    is_xla = precision == "float32_xla"
    dtype = tf.float32 if is_xla or precision == "tf32" else tf.as_dtype(precision)
    left = tf.cast(tf.random.stateless_uniform([size, size], (0, 1)), dtype)
    right = tf.cast(tf.random.stateless_uniform([size, size], (0, 2)), dtype)
    # Captured tensors: TensorFlow would multiply constants once, while it optimizes the graph.
    product = tf.function(lambda: tf.matmul(left, right), autograph=False, jit_compile=is_xla)

    def call() -> Any:
        # Fetching one number waits for the device, and copies next to nothing.
        return product()[0, 0].numpy()

    return call


def _memory_peak(num_bytes: int, secs: float) -> float:
    """Returns the bytes read and written per second."""
    target = tf.Variable(tf.zeros([num_bytes // 4]), trainable=False)
    addend = tf.fill([num_bytes // 4], 1e-3)

    @tf.function(autograph=False, jit_compile=False)
    def add() -> tf.Tensor:
        target.assign_add(addend, read_value=False)
        return target[:1]

    return 3 * num_bytes / median_secs(lambda: add().numpy(), secs)
