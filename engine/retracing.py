"""Traces of a compiled function: what each was made for, and what made another one necessary."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from .config import ConfigError
from .protocols import GraphBatches

FIRST_CALL = "first call"

# Argument, or part of the batch -> what of it the graph was made for: aspect -> value.
Signature = dict[str, dict[str, Any]]


class RetraceError(ConfigError):
    """A compiled function would have to be traced more often than `max_retraces` allows."""


@dataclasses.dataclass(frozen=True)
class Trace:
    """One trace of a compiled function.

    Attributes:
      function: Name of the step in it.
      cause: `FIRST_CALL`, or which argument changed, and what in it.
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
    """Appends a trace with its cause, unless there would be too many.

    Args:
      traces: Earlier traces of the function.
      function: Name of the step.
      signature: What the new graph is for.
      max_retraces: How many traces beyond the first are allowed; None: any number.

    Raises:
      RetraceError: If there are that many already.
    """
    trace = Trace(function, explain(signature, [t.signature for t in traces]), signature)
    check_count(trace, len(traces), max_retraces)
    traces.append(trace)


def signature_of(iterator: Any, num_steps: tf.Tensor) -> Signature:
    """Returns what of the arguments of a `StepFunction` the graph depends on."""
    is_resident = isinstance(iterator, GraphBatches)
    signature: Signature = {
        "num_steps": _aspects(num_steps),
        "the iterator": {"kind": "of batches made in the graph" if is_resident else "tf.data's"},
    }
    if is_resident:
        # Its arrays are constants of the graph: another object needs another graph.
        signature["the data set"] = {"object": weakref.ref(iterator)}
    for path, spec in keras.tree.flatten_with_path(iterator.element_spec):
        signature["batch" + "".join(f"[{key!r}]" for key in path)] = _aspects(spec)
    return signature


def explain(signature: Signature, earlier: Sequence[Signature]) -> str:
    """Returns why a graph is traced: what differs from the most similar of the earlier ones.

    Args:
      signature: What the graph is made for.
      earlier: What there are graphs for already, the oldest first.

    Returns:
      One line.
    """
    if not earlier:
        return FIRST_CALL
    # Of equally similar ones, the newest is what a person remembers.
    changes = min((_changes(other, signature) for other in reversed(earlier)), key=len)
    return "; ".join(changes) or (
        "nothing changed in the arguments: something else that TensorFlow keys graphs on did, such "
        "as the strategy's scope or the devices"
    )


def check_count(trace: Trace, num_earlier: int, max_retraces: int | None) -> None:
    """Raises RetraceError if there are more retraces with this one than allowed."""
    if max_retraces is not None and num_earlier > max_retraces:
        raise RetraceError(
            f"{trace.function} needs trace number {num_earlier + 1}, with "
            f"max_retraces={max_retraces}: {trace.cause}. Give all batches one structure, dtype "
            "and rank, and each fit of a state the same data set object, or allow more."
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
    if aspect == "object":
        return "another data set object, whose arrays are part of the graph"
    return f"{name}: {aspect} {now}, before {before}"
