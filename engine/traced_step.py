"""What a traced step does to variables, read from its graph, whatever its code looks like.

A step that forgets something is traced like any other. Its graph tells: which metrics it leaves
alone, whether it trains, and whether it changes what no checkpoint has.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from .state import TrainState

# Operation -> the attributes that name its functions, and how many inputs come before theirs.
_CALLS = {
    "PartitionedCall": (("f",), 0),
    "StatefulPartitionedCall": (("f",), 0),
    "While": (("cond", "body"), 0),
    "StatelessWhile": (("cond", "body"), 0),
    "If": (("then_branch", "else_branch"), 1),
    "StatelessIf": (("then_branch", "else_branch"), 1),
    "Case": (("branches",), 1),
    "StatelessCase": (("branches",), 1),
}
# Of the stateful operations, those that draw from a state that TensorFlow keeps to itself.
_RANDOM = re.compile(
    r"Random(?!ShuffleQueue|Dataset)\w+|\w*TruncatedNormal|Multinomial|\w+CandidateSampler"
    r"|SampleDistortedBoundingBox(V2)?"
)
_READS = ("ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape")


def check_traced(traced: Any, state: TrainState, name: str, *, trains: bool) -> None:
    """Warns of what a step forgets.

    Args:
      traced: The step as `tf.types.experimental.ConcreteFunction`.
      state: What it is a step of.
      name: Of the step.
      trains: Whether it should update variables.

    Raises:
      ValueError: See `check_updates`.
    """
    written = {id(handle) for handle in written_handles(traced)}
    known = {id(h): v for _, v in state.named_variables() for h in handles_of(v)}
    unknown = [v.name for v in traced.graph.variables if id(v.handle) in written - set(known)]
    optimizers = state.optimizers.values()
    scratch = {v.name for o in optimizers for v in vars(o).get("_fused_scratch", {}).values()}
    if (record := state.step_variables.record) is not None:
        scratch |= {copy.name for copy in copies_of(record.variable)}
    for scaling in state.step_variables.loss_scalings.values():
        scratch |= {copy.name for copy in copies_of(scaling.flags)}
    unsaved = sorted(set(unknown) - scratch)
    if unsaved:
        _warn(
            f"{name} changes variables that its TrainState does not have, so that no checkpoint "
            f"has them: {', '.join(unsaved[:3])}. Pass what owns them in TrainState(extras=...)."
        )
    if trains and state.resumption.is_saved:
        _warn_of_randomness(traced.graph, name)
    if state.strategy.num_replicas_in_sync > 1:
        _warn_of_extremes(traced.graph, state)
    used = {id(handle) for handle, _ in traced.graph.captures}
    trainable = {id(h) for v in known.values() if v.trainable for h in handles_of(v)} & used
    if trains and trainable and not trainable & written:
        _warn(
            f"{name} uses trainable variables and changes none: call "
            "state.apply_gradients(gradients) in it, or evaluate instead."
        )
    check_updates(state, name, trains=trains)
    for optimizer in state.notes.unscaled_optimizers():
        _warn(
            f"{name} applies gradients of a loss that is not scaled, to {optimizer.name}, which "
            "divides them by the loss scale: take the gradients of state.scale_loss(loss)."
        )


def check_updates(state: TrainState, name: str, *, trains: bool) -> None:
    """Raises ValueError if a config or a hook asks for what only `state.apply_gradients` does.

    Args:
      state: Its notes are of a step that has been called.
      name: Of the step.
      trains: Whether it should update variables.
    """
    if state.notes.has_applied:
        return
    if state.notes.accumulation_steps > 1:
        raise ValueError(
            f"gradient_accumulation_steps={state.notes.accumulation_steps}, but {name} does not "
            "call state.apply_gradients(gradients) or state.minimize(loss_fn): no other update "
            "can wait. Call one of them, or leave gradient_accumulation_steps out."
        )
    if state.notes.checks_finite:
        raise ValueError(
            f"on_nonfinite is set, but {name} does not call state.apply_gradients(gradients) or "
            "state.minimize(loss_fn): no other update can be left out. Call one of them, or leave "
            "on_nonfinite and its hook out."
        )
    if trains and state.watched_gradients:
        raise ValueError(
            f"GradientNorm sees no gradients: {name} calls neither state.apply_gradients nor "
            "state.minimize. Call one of them, or leave the hook out."
        )


def _warn_of_randomness(graph: Any, name: str) -> None:
    found = [
        operation
        for operation in operations_of(graph)
        if _RANDOM.fullmatch(operation.type) and operation.op_def.is_stateful
    ]
    if found:
        place = found[0].name.rpartition("/")[0] or name
        _warn(
            f"{name} draws random numbers with {found[0].type}, at {place}. TensorFlow keeps where "
            "it stands to itself, so that no checkpoint has it, and a resumed run has other "
            "numbers. Draw them with tf.random.stateless_... and seed=state.seed(), or with "
            "keras.random, in a layer with a keras.random.SeedGenerator of its own."
        )


def _warn_of_extremes(graph: Any, state: TrainState) -> None:
    paths = {id(handle): v.path for v in state.metrics.variables() for handle in handles_of(v)}
    outside = {id(inside): id(handle) for handle, inside in graph.captures}
    for operation in graph.get_operations():
        if operation.type == "AssignVariableOp":
            path = paths.get(outside.get(id(operation.inputs[0]), 0))
            if path and _made_by(operation.inputs[1]) in ("Maximum", "Minimum"):
                _warn(
                    f"The metric variable {path} keeps a maximum or minimum, and TensorFlow adds "
                    "those of all replicas: inherit engine.Largest, for a minimum with the sign "
                    "turned around."
                )
                return


def _made_by(tensor: tf.Tensor) -> str:
    operation = tensor.op
    while operation.type in ("Identity", "Cast"):
        operation = operation.inputs[0].op
    return str(operation.type)


def unwritten_names(traced: Any, metrics: Mapping[str, keras.metrics.Metric]) -> set[str]:
    """Returns the names of the metrics that a traced step does not update."""
    written = {id(handle) for handle in written_handles(traced)}
    return {
        name
        for name, metric in metrics.items()
        if not any(id(h) in written for v in metric.variables for h in handles_of(v))
    }


def handles_of(variable: keras.Variable) -> list[tf.Tensor]:
    """Returns the resource handle of a variable, or one a replica of a distributed one."""
    return [copy.handle for copy in copies_of(variable)]


def copies_of(variable: keras.Variable) -> list[tf.Variable]:
    """Returns TensorFlow's variable, or one a replica of a distributed one."""
    return list(getattr(variable.value, "values", None) or [variable.value])


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)


def written_handles(function: Any) -> list[tf.Tensor]:
    """Returns the resource handles outside a concrete function that it writes.

    Args:
      function: `tf.types.experimental.ConcreteFunction`.
    """
    graph = function.graph
    outside = {id(inside): handle for handle, inside in graph.captures}
    return [outside[id(t)] for t in resources_written(graph) if id(t) in outside]


def resources_written(graph: Any) -> Iterator[tf.Tensor]:
    """Yields the resources of a graph that an operation in it writes, at any depth."""
    for operation in graph.get_operations():
        if operation.type in _CALLS:
            attributes, offset = _CALLS[operation.type]
            for inner in _functions(operation, attributes):
                positions = {id(t): index for index, t in enumerate(inner.inputs)}
                for tensor in resources_written(inner):
                    if id(tensor) in positions:
                        yield operation.inputs[positions[id(tensor)] + offset]
        elif operation.type not in _READS:
            yield from (t for t in operation.inputs if t.dtype == tf.resource)


def operations_of(graph: Any) -> Iterator[tf.Operation]:
    """Yields the operations of a graph, at any depth."""
    for operation in graph.get_operations():
        yield operation
        if operation.type in _CALLS:
            for inner in _functions(operation, _CALLS[operation.type][0]):
                yield from operations_of(inner)


def _functions(operation: tf.Operation, attributes: tuple[str, ...]) -> Iterator[Any]:
    for attribute in attributes:
        value = operation.get_attr(attribute)
        for one in value if isinstance(value, list) else [value]:
            yield operation.graph._get_function(one.name).graph
