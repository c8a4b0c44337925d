"""Floating-point operations of one training step, counted from the model's graph.

A step is the forward pass, the loss and the gradient of each trainable variable. It is traced with
static shapes. What no gradient needs is left out, as TensorFlow's graph optimizer leaves it out:
the gradient with respect to the images, for example.

Matrix products and convolutions are counted exactly, a multiplication and an addition as one each
(2 m n k for a product of m x k and k x n); a convolution with padding counts its zeros. The share
of the machine's roof comes from these alone. All other arithmetic counts as one operation per
element, which is a rough measure.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from benchmarks.hardware import operations

_CALLS = frozenset(("PartitionedCall", "StatefulPartitionedCall"))
_LOOPS = frozenset(("While", "StatelessWhile"))
_BRANCHES = frozenset(("If", "StatelessIf", "Case", "StatelessCase"))
# Stateful, but without an effect that a later step sees.
_PURE = ("ReadVariableOp", "Random", "Stateless", "VariableShape", "VarHandleOp", "Placeholder")


@dataclasses.dataclass(frozen=True)
class Flops:
    """Operations of one step.

    Attributes:
      matmul: Of matrix products and convolutions.
      elementwise: Of all other operations, one for each element.
    """

    matmul: int = 0
    elementwise: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.matmul + self.elementwise

    def __add__(self, other: Flops) -> Flops:
        """Sums both kinds."""
        return Flops(self.matmul + other.matmul, self.elementwise + other.elementwise)

    def __mul__(self, times: int) -> Flops:
        """Multiplies both kinds."""
        return Flops(self.matmul * times, self.elementwise * times)


def count_train_step_flops(
    model: keras.Model, loss: Callable[[Any, Any], Any], batch_spec: tuple[Any, Any]
) -> int:
    """Returns the matrix operations of one step, which are compared with the machine's roof.

    See `count_train_step`.
    """
    return count_train_step(model, loss, batch_spec).matmul


def count_train_step(
    model: keras.Model,
    loss: Callable[[Any, Any], Any],
    batch_spec: tuple[Any, Any],
    optimizer: keras.optimizers.Optimizer | None = None,
) -> Flops:
    """Counts the operations of one training step without training. Context: outside any graph.

    Args:
      model: Built.
      loss: `(y, y_pred)` to a scalar.
      batch_spec: `(x, y)` of `tf.TensorSpec`, with static shapes.
      optimizer: Builds it and counts its update too; None: counts no update.

    Raises:
      ValueError: If a shape or the number of a loop's iterations is unknown.
    """
    variables = [variable.value for variable in model.trainable_variables]
    if optimizer is not None:
        optimizer.build(model.trainable_variables)

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            value = tf.add_n([loss(y, model(x, training=True)), *model.losses])
        gradients = tape.gradient(value, variables)
        if optimizer is not None:
            optimizer.apply(gradients, model.trainable_variables)
        return [gradient for gradient in gradients if gradient is not None]

    with _without_cudnn(model):
        function = tf.function(step, autograph=False).get_concrete_function(*batch_spec)
    return count_graph(function.graph)


def count_graph(graph: Any) -> Flops:
    """Counts the operations that a function's outputs need, and those that change variables.

    Raises:
      ValueError: If a shape or the number of a loop's iterations is unknown.
    """
    return _Counter(graph).count(range(len(graph.outputs)))


@contextlib.contextmanager
def _without_cudnn(model: keras.Model) -> Iterator[None]:
    # A recurrent layer of cuDNN is one operation, whose parts cannot be counted.
    layers = [layer for layer in model._flatten_layers() if hasattr(layer, "use_cudnn")]
    before = [layer.use_cudnn for layer in layers]
    for layer in layers:
        layer.use_cudnn = False
    try:
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            layer.use_cudnn = value


class _Counter:
    """Walks a graph back from the wanted outputs, into functions, loops and branches.

    Args:
      graph: Of a function.
      caller: The counter of the calling graph, and the tensors that it passes.
    """

    def __init__(self, graph: Any, caller: tuple[_Counter, list[tf.Tensor]] | None = None) -> None:
        self._graph = graph
        self._caller = caller
        self._inputs = {tensor.name: index for index, tensor in enumerate(graph.inputs)}

    def count(self, wanted: Iterable[int]) -> Flops:
        """Returns the operations that the outputs with these indices need."""
        flops = Flops()
        for operation, outputs in self._live(wanted).items():
            flops += self._count_operation(operation, outputs)
        return flops

    def needed_inputs(self, wanted: Iterable[int]) -> set[int]:
        """Returns the indices of the inputs that the outputs with these indices need."""
        live = self._live(wanted)
        outputs = {tensor.name for index in wanted for tensor in [self._graph.outputs[index]]}
        read = {tensor.name for op, used in live.items() for tensor in self._read_by(op, used)}
        return {index for name, index in self._inputs.items() if name in read | outputs}

    def _live(self, wanted: Iterable[int]) -> dict[tf.Operation, set[int]]:
        """Returns the operations that are needed, and which of their outputs."""
        live: dict[tf.Operation, set[int]] = {}
        pending = [self._graph.outputs[index] for index in wanted]
        for operation in self._graph.get_operations():
            if _has_effect(operation):
                live[operation] = set()
                pending += self._read_by(operation, set())
        while pending:
            tensor = pending.pop()
            operation, used = tensor.op, live.setdefault(tensor.op, set())
            if tensor.value_index not in used:
                used.add(tensor.value_index)
                pending += self._read_by(operation, used)
        return live

    def _read_by(self, operation: tf.Operation, outputs: set[int]) -> list[tf.Tensor]:
        """Returns the inputs that an operation reads for these outputs of it."""
        inputs = list(operation.inputs)
        if operation.type in _CALLS:
            needed = self._function(operation, "f").needed_inputs(outputs)
            return [inputs[index] for index in sorted(needed)]
        if operation.type in _LOOPS:
            carried = self._carried(operation, outputs)
            return [inputs[index] for index in sorted(carried)]
        if operation.type in _BRANCHES:
            needed = set()
            for branch in self._branches(operation):
                needed |= branch.needed_inputs(outputs)
            return [inputs[0], *(inputs[index + 1] for index in sorted(needed))]
        return inputs

    def _carried(self, operation: tf.Operation, outputs: set[int]) -> set[int]:
        """Returns the loop variables that these outputs need, over all iterations."""
        body = self._function(operation, "body")
        carried = outputs | self._function(operation, "cond").needed_inputs([0])
        while True:
            grown = carried | body.needed_inputs(carried)
            if grown == carried:
                return carried
            carried = grown

    def _count_operation(self, operation: tf.Operation, outputs: set[int]) -> Flops:
        if operation.type in _CALLS:
            return self._function(operation, "f").count(outputs)
        if operation.type in _BRANCHES:
            # Which one runs is unknown here: the most expensive counts.
            branches = [branch.count(outputs) for branch in self._branches(operation)]
            return max(branches, key=lambda flops: flops.total)
        if operation.type in _LOOPS:
            once = self._function(operation, "body").count(self._carried(operation, outputs))
            return once * self._num_iterations(operation)
        if operation.type in operations.MATMUL_FLOPS:
            return Flops(matmul=operations.MATMUL_FLOPS[operation.type](operation))
        return Flops(elementwise=operations.elementwise_flops(operation))

    def _function(self, operation: tf.Operation, attribute: str) -> _Counter:
        return self._named(operation, operation.get_attr(attribute).name, list(operation.inputs))

    def _branches(self, operation: tf.Operation) -> list[_Counter]:
        inputs = list(operation.inputs)[1:]
        if operation.type.endswith("Case"):
            names = [branch.name for branch in operation.get_attr("branches")]
        else:
            names = [operation.get_attr(name).name for name in ("then_branch", "else_branch")]
        return [self._named(operation, name, inputs) for name in names]

    def _named(self, operation: tf.Operation, name: str, inputs: list[tf.Tensor]) -> _Counter:
        return _Counter(operation.graph._get_function(name).graph, (self, inputs))

    def _num_iterations(self, operation: tf.Operation) -> int:
        # The first inputs of TensorFlow's loops, and of their gradients, are a counter and its
        # maximum.
        maximum = self._constant(operation.inputs[1])
        if maximum is None or maximum < 0:
            raise ValueError(
                f"The number of iterations of {operation.name} is unknown while it is traced: "
                "pass maximum_iterations to tf.while_loop, or unroll the layer."
            )
        return maximum

    def _constant(self, tensor: tf.Tensor) -> int | None:
        """Returns the value of an integer, or None if it depends on a variable or on the batch."""
        if tensor.op.type == "Identity":
            return self._constant(tensor.op.inputs[0])
        if tensor.name in self._inputs:
            if self._caller is None:
                return None
            counter, inputs = self._caller
            return counter._constant(inputs[self._inputs[tensor.name]])
        try:
            with tf.compat.v1.Session(graph=self._graph) as session:
                return int(session.run(tensor))
        except tf.errors.OpError:  # It depends on the batch or on a variable.
            return None


def _has_effect(operation: tf.Operation) -> bool:
    is_stateful = operation.op_def is not None and operation.op_def.is_stateful
    return is_stateful and not operation.type.startswith(_PURE)
