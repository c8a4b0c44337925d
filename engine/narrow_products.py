"""`narrow_products`, in XLA on a CPU: gradients of weights of few outputs by a faster product.

The gradient of a layer's weights, `[inputs, outputs]`, is the product of its inputs and of the
gradients of its outputs over the batch. XLA leaves it to Eigen, which computes along the last axis,
16 numbers at a time: ten outputs fill no vector, and the inputs are packed one by one, in steps of
a row. As `[outputs, inputs]`, which is then transposed, the same product takes a half to a tenth
of the time.

With the same bits for most nets, and not by construction: of some shapes, Eigen adds up in another
order, and of a sum of two products that follows, XLA rounds only one before it adds, which may
become the other one. So `tune` compares the bits of trainings, and `numerics="fast"` has it anyway.
"""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.python.ops import math_grad

from .patching import patched

# Measured for 32 and 128 examples: with 64 outputs or fewer inputs, little is gained.
MIN_INPUTS = 128
MAX_OUTPUTS = 32

_operations = math_grad.gen_math_ops


def narrow_products(*, is_on: bool) -> contextlib.AbstractContextManager[None]:
    """Lets gradients of narrow weights be that product while a step is traced.

    Context: around the trace of what XLA compiles for a CPU.

    Args:
      is_on: If not, nothing is changed.
    """
    if not is_on:
        return contextlib.nullcontext()
    operations = SimpleNamespace(**vars(_operations) | {"mat_mul": _mat_mul})
    return patched(math_grad, gen_math_ops=operations)


def _mat_mul(a: tf.Tensor, b: tf.Tensor, **kwargs: Any) -> tf.Tensor:
    is_over_batch = kwargs.get("transpose_a") and not kwargs.get("transpose_b")
    if is_over_batch and a.dtype == b.dtype == tf.float32 and _is_narrow(a.shape[1], b.shape[1]):
        return _multiply(a, b)
    return _operations.mat_mul(a, b, **kwargs)


def _is_narrow(num_inputs: int | None, num_outputs: int | None) -> bool:
    if num_inputs is None or num_outputs is None:
        return False
    # A product with a vector is another operation.
    return num_inputs >= MIN_INPUTS and 1 < num_outputs <= MAX_OUTPUTS


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _multiply(a: tf.Tensor, b: tf.Tensor) -> Any:
    """Returns the product of the transposed `a` and `b`, as that of the transposed `b` and `a`.

    It has the gradients of the former, for steps that differentiate a gradient.
    """

    def compute_gradients(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _operations.mat_mul(b, gradient, transpose_b=True), _operations.mat_mul(a, gradient)

    # XLA would turn the product around again if it saw the transposition.
    (product,) = xla.optimization_barrier(_operations.mat_mul(b, a, transpose_a=True))
    return tf.transpose(product), compute_gradients
