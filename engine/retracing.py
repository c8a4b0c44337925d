"""Traces of a compiled function: what each graph is for, and why another one was needed."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from .array_batches import ArrayBatches
from .options import ConfigError
from .protocols import GraphBatches

FIRST_CALL = "first call"

# Argument, or part of the batch, to what the graph depends on of it: aspect to value.
Signature = dict[str, dict[str, Any]]


class RetraceError(ConfigError):
    """A call needs more traces of a compiled function than `max_retraces` allows."""


@dataclasses.dataclass(frozen=True)
class Trace:
    """One trace of a compiled function.

    Attributes:
      function: Name of the step.
      cause: `FIRST_CALL`, or which argument changed and how.
      signature: What the graph is for.
    """

    function: str
    cause: str
    signature: Signature = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, str]:
        """Returns function and cause, JSON-ready."""
        return {"function": self.function, "cause": self.cause}


def note_trace(
    traces: list[Trace], function: str, signature: Signature, max_retraces: int | None
) -> None:
    """Appends a trace and its cause, or raises if that is one too many.

    Args:
      traces: Earlier traces of the function.
      function: Name of the step.
      signature: What the new graph is for.
      max_retraces: How many traces beyond the first are allowed; None: any number.

    Raises:
      RetraceError: If there are that many already.
    """
    cause = explain(signature, [trace.signature for trace in traces])
    if max_retraces is not None and len(traces) > max_retraces:
        raise RetraceError(
            f"{function} needs trace number {len(traces) + 1}, with max_retraces={max_retraces}: "
            f"{cause}. Give all batches one structure, dtype and rank, and each fit of a state the "
            "same dataset object, or allow more."
        )
    traces.append(Trace(function, cause, signature))


def signature_of(
    iterator: Any, num_steps: tf.Tensor, of_model: Mapping[str, Any] | None = None
) -> Signature:
    """Returns what the graph of a `StepFunction` depends on: its arguments, and the model."""
    is_resident = isinstance(iterator, GraphBatches | ArrayBatches)
    signature: Signature = {
        "num_steps": _aspects(num_steps),
        "the iterator": {"kind": "of batches made in the graph" if is_resident else "tf.data's"},
    }
    if isinstance(iterator, ArrayBatches):
        signature["the dataset"] = {"kind": iterator.recipe.key[0]}
    elif is_resident:
        # Its arrays are constants of the graph: another object needs another graph.
        signature["the dataset"] = {"object": weakref.ref(iterator)}
    signature["the model"] = dict(of_model or {})
    for path, spec in keras.tree.flatten_with_path(iterator.element_spec):
        signature["batch" + "".join(f"[{key!r}]" for key in path)] = _aspects(spec)
    return signature


def explain(signature: Signature, earlier: Sequence[Signature]) -> str:
    """Returns, in one line, how a new graph differs from the most similar earlier one.

    Args:
      signature: What the new graph is for.
      earlier: What the existing graphs are for, the oldest first.
    """
    if not earlier:
        return FIRST_CALL
    # Of equally similar graphs, the newest is the one that a person remembers.
    changes = min((_changes(other, signature) for other in reversed(earlier)), key=len)
    return "; ".join(changes) or (
        "nothing changed in the arguments: something else that TensorFlow keys graphs on did, such "
        "as the strategy's scope or the devices"
    )


def _aspects(value: Any) -> dict[str, Any]:
    if not isinstance(value, tf.TensorSpec | tf.Tensor):
        return {"kind": repr(value)}
    return {"shape": str(value.shape), "dtype": value.dtype.name}


def _changes(before: Signature, now: Signature) -> list[str]:
    gone = [f"{name} is gone" for name in before if name not in now and _is_of_batch(name)]
    new = [f"{name} is new" for name in now if name not in before and _is_of_batch(name)]
    changed = [
        _describe(name, aspect, before[name].get(aspect), value)
        for name in now
        if name in before
        for aspect, value in now[name].items()
        if before[name].get(aspect) != value
    ]
    return changed + gone + new


def _is_of_batch(name: str) -> bool:
    return name.startswith("batch")


def _describe(name: str, aspect: str, before: Any, now: Any) -> str:
    if aspect == "trainable":
        frozen, thawed = sorted(set(before) - set(now)), sorted(set(now) - set(before))
        changes = {"no longer trainable": frozen, "trainable now": thawed}
        return "; ".join(f"{what}: {', '.join(names)}" for what, names in changes.items() if names)
    if aspect == "object":
        return (
            "another dataset object, whose arrays are part of the graph (dataset.replace keeps it)"
        )
    return f"{name}: {aspect} {now}, before {before}"
