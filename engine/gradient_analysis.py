"""What gradients are: how large, and what they wait for."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

Gradient = Any  # tf.Tensor, tf.IndexedSlices, or None where the loss does not depend on it

# Their outputs tell shapes alone, which the graph optimizer finds without computing their inputs.
_SHAPES = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike", "BroadcastGradientArgs")


def wait_for_reads(gradients: Sequence[Gradient], variables: Sequence[keras.Variable]) -> bool:
    """Returns whether each gradient waits for all that gradients need of its variable.

    That of a loss which is linear in the outputs of the model, such as a critic's, does not: of the
    outputs it needs the shape alone. The graph optimizer of TensorFlow 2.21 first drops the control
    edge between the read of a variable in the backward pass and its update, because the shape comes
    from the read too, and then finds the shape without it: the update may come first.
    """
    graph = tf.compat.v1.get_default_graph()
    handles = {id(graph.capture(variable.value.handle)): id(variable) for variable in variables}
    reads: dict[int, int] = {}  # variable -> its reads, as bits
    sources: dict[str, int] = {}  # operation -> the reads that its data come from
    for number, operation in enumerate(graph.get_operations()):
        bits = 0
        if operation.type == "ReadVariableOp" and id(operation.inputs[0]) in handles:
            bits, key = 1 << number, handles[id(operation.inputs[0])]
            reads[key] = reads.get(key, 0) | bits
        elif operation.type not in _SHAPES:
            bits = _union(sources, operation.inputs)
        sources[operation.name] = bits
    of_each = [_union(sources, tf.nest.flatten(g, expand_composites=True)) for g in gradients]
    needed = functools.reduce(operator.or_, of_each)
    pairs = zip(of_each, variables, strict=True)
    return all(not reads.get(id(variable), 0) & needed & ~own for own, variable in pairs)


def _union(sources: dict[str, int], tensors: Iterable[tf.Tensor | None]) -> int:
    present = (tensor for tensor in tensors if tensor is not None)
    # An input of a loop may come later: its gradient adds some.
    bits = (sources.get(tensor.op.name, 0) for tensor in present)
    return functools.reduce(operator.or_, bits, 0)


def norms(
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[Gradient],
    variables: Sequence[keras.Variable],
    *,
    per_layer: bool,
) -> dict[str, tf.Tensor]:
    """Returns the norms of the gradients over the global batch, before they are clipped.

    Context: replica. The L2 norm of all, `gradient_norm`; and of the variables of each layer,
    `gradient_norm/<layer>`.

    Args:
      optimizer: Its loss scale is taken out of the gradients.
      gradients: Of the scaled loss on this replica.
      variables: One a gradient.
      per_layer: Whether to return those of layers.
    """
    pairs = zip(gradients, variables, strict=True)
    present = [(tf.convert_to_tensor(g), variable) for g, variable in pairs if g is not None]
    summed = [gradient for gradient, _ in present]
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync > 1:
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, summed)
    scale = tf.cast(optimizer.scale_loss(tf.constant(1.0)), tf.float32)
    squares: dict[str, list[tf.Tensor]] = {}
    for gradient, (_, variable) in zip(summed, present, strict=True):
        square = tf.reduce_sum(tf.square(tf.cast(gradient, tf.float32) / scale))
        layer = variable.path.rsplit("/", 1)[0]
        squares.setdefault(layer, []).append(square)
    total = {"gradient_norm": tf.sqrt(tf.add_n([s for parts in squares.values() for s in parts]))}
    layers = {f"gradient_norm/{name}": tf.sqrt(tf.add_n(s)) for name, s in squares.items()}
    return total | layers if per_layer else total
