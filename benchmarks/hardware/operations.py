"""Floating-point operations of one TensorFlow operation, from the shapes of its tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

_ELEMENTWISE = frozenset(
    (
        "Abs", "Add", "AddV2", "BiasAdd", "Ceil", "ClipByValue", "Div", "DivNoNan", "Elu",
        "EluGrad", "Equal", "Erf", "Exp", "Expm1", "Floor", "FloorDiv", "FloorMod",
        "Greater", "GreaterEqual", "Inv", "LeakyRelu", "LeakyReluGrad", "Less", "LessEqual",
        "Log", "Log1p", "LogSoftmax", "LogicalAnd", "LogicalNot", "LogicalOr", "Maximum",
        "Minimum", "Mul", "MulNoNan", "Neg", "NotEqual", "Pow", "RealDiv", "Reciprocal",
        "Relu", "Relu6", "Relu6Grad", "ReluGrad", "Rint", "Round", "Rsqrt", "RsqrtGrad",
        "Select", "SelectV2", "Selu", "SeluGrad", "Sigmoid", "SigmoidGrad", "Sign",
        "Softmax", "Softplus", "SoftplusGrad", "Softsign", "Sqrt", "SqrtGrad", "Square",
        "SquaredDifference", "Sub", "Tanh", "TanhGrad", "Xlogy",
    )
)  # fmt: skip
# One operation for each element of the inputs.
_REDUCTIONS = frozenset(
    (
        "AddN", "ArgMax", "ArgMin", "AvgPool", "AvgPoolGrad", "BiasAddGrad", "Cumsum",
        "FusedBatchNormGradV3", "FusedBatchNormV3", "L2Loss", "Max", "MaxPool",
        "MaxPoolGrad", "Mean", "Min", "Prod", "SoftmaxCrossEntropyWithLogits",
        "SparseSoftmaxCrossEntropyWithLogits", "Sum", "UnsortedSegmentSum",
    )
)  # fmt: skip
_UPDATES = frozenset(("AssignAddVariableOp", "AssignSubVariableOp"))


def _shape(tensor: tf.Tensor) -> list[int]:
    if not tensor.shape.is_fully_defined():
        raise ValueError(
            f"The shape of {tensor.name} is {tensor.shape}: pass a batch_spec with static shapes, "
            "and a model whose shapes follow from it."
        )
    return list(tensor.shape)


def _num_elements(tensor: tf.Tensor) -> int:
    return math.prod(_shape(tensor))


def _matmul_flops(operation: tf.Operation) -> int:
    """Returns 2 m n k for each matrix product of the batch."""
    left, output = operation.inputs[0], operation.outputs[0]
    # MatMul and BatchMatMul name the attribute differently.
    names = ("transpose_a", "adj_x")
    is_transposed = any(
        operation.get_attr(name) for name in names if name in operation.node_def.attr
    )
    depth = _shape(left)[-2 if is_transposed else -1]
    return 2 * _num_elements(output) * depth


def _convolution_flops(images: Any, kernel: Any) -> Callable[[tf.Operation], int]:
    """Returns a function that counts the operations of a convolution or of one of its gradients.

    All three have the same products: each element of the output with the kernel's elements for its
    output channel.

    Args:
      images: Operation to the convolution's output, or to the gradient of that shape.
      kernel: Operation to the kernel, or to the gradient of its shape: `[*window, channels in,
        channels out]`.
    """
    return lambda op: 2 * _num_elements(images(op)) * math.prod(_shape(kernel(op))[:-1])


def _depthwise_flops(images: Any, kernel: Any) -> Callable[[tf.Operation], int]:
    """Like `_convolution_flops`, for kernels `[*window, channels in, multiplier]`.

    An element of the output sums over one input channel.
    """
    return lambda op: 2 * _num_elements(images(op)) * math.prod(_shape(kernel(op))[:-2])


def _einsum_flops(operation: tf.Operation) -> int:
    """Returns 2 for each combination of the indices, or 1 for a sum over a single operand."""
    equation = operation.get_attr("equation").decode().replace(" ", "")
    operands = equation.split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for labels, tensor in zip(operands, operation.inputs, strict=True):
        shape = _shape(tensor)
        before, dots, after = labels.partition("...")
        # Broadcast axes are named from the right, so that they match those of the other operand.
        num_hidden = len(shape) - len(before) - len(after) if dots else 0
        hidden = [f"...{index}" for index in reversed(range(num_hidden))]
        for label, size in zip([*before, *hidden, *after], shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return (2 if len(operands) > 1 else 1) * math.prod(sizes.values())


def _input(index: int) -> Callable[[tf.Operation], tf.Tensor]:
    return lambda operation: operation.inputs[index]


def _output(operation: tf.Operation) -> tf.Tensor:
    return operation.outputs[0]


# The arguments for a convolution: the tensor with the shape of its output, and that of its kernel.
MATMUL_FLOPS: dict[str, Callable[[tf.Operation], int]] = {
    **dict.fromkeys(
        ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "SparseMatMul"), _matmul_flops
    ),
    "Einsum": _einsum_flops,
    "Conv2D": _convolution_flops(_output, _input(1)),
    "Conv2DBackpropInput": _convolution_flops(_input(2), _input(1)),
    "Conv2DBackpropFilter": _convolution_flops(_input(2), _output),
    "Conv3D": _convolution_flops(_output, _input(1)),
    "Conv3DBackpropInputV2": _convolution_flops(_input(2), _input(1)),
    "Conv3DBackpropFilterV2": _convolution_flops(_input(2), _output),
    "DepthwiseConv2dNative": _depthwise_flops(_output, _input(1)),
    "DepthwiseConv2dNativeBackpropInput": _depthwise_flops(_input(2), _input(1)),
    "DepthwiseConv2dNativeBackpropFilter": _depthwise_flops(_input(2), _output),
}


def elementwise_flops(operation: tf.Operation) -> int:
    """Returns 1 for each element, or 0 for an operation that only moves or selects values."""
    if operation.type in _ELEMENTWISE and operation.outputs[0].dtype.is_floating:
        return _num_elements(operation.outputs[0])
    if operation.type in _REDUCTIONS:
        return sum(_num_elements(t) for t in operation.inputs if t.dtype.is_floating)
    if operation.type in _UPDATES:
        return _num_elements(operation.inputs[1])
    return 0
