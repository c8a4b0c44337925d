"""The first operation of a step whose output is not finite, found by running it with checks."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .protocols import Batch
from .replicated_step import StepFn
from .state import TrainState
from .trace_notes import TraceNotes
from .variables import local_values

# Function on the stack -> what is computed there; the first that matches.
_PHASES = {
    "apply_gradients": "update",
    "gradient": "backward pass",
    "compute_loss": "loss",
    "update_metrics": "metrics",
}
_OPERATION = re.compile(r'Infinity or NaN in output \d+ of [\w-]+ op "([^"]+)"')
_SHAPE = re.compile(r"^  shape: (.*)$", re.MULTILINE)
_COUNT = re.compile(r"^  # of \+?(-Inf|Inf|NaN) elements: (\d+)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class FirstNonfinite:
    """An operation whose output is not finite.

    Attributes:
      operation: Its type, such as "MatMul".
      phase: "forward pass", "loss", "backward pass", "update" or "metrics".
      layer: Path of the layer that called it; None in the backward pass and outside of layers.
      shape: Of its output on one replica.
      counts: How many elements are "NaN", "Inf" and "-Inf".
    """

    operation: str
    phase: str
    layer: str | None
    shape: str
    counts: dict[str, int]

    def __str__(self) -> str:
        where = f" in {self.layer}" if self.layer else ""
        what = ", ".join(f"{number:,} {kind}" for kind, number in self.counts.items())
        return f"{self.operation}{where} ({self.phase}), output of shape {self.shape}: {what}"


def find_first_nonfinite(
    train_step: StepFn, state: TrainState, batch: Batch, *, accumulation_steps: int = 1
) -> FirstNonfinite | None:
    """Runs a step in Python with `tf.debugging.enable_check_numerics`; it changes the state.

    Operation by operation, a step may round otherwise than its compiled graph does.
    Context: cross-replica.

    Args:
      train_step: `(state, batch) -> logs`.
      state: Built.
      batch: Global, as an iterator of a distributed dataset gives it.
      accumulation_steps: As `TrainConfig.gradient_accumulation_steps`.

    Returns:
      The first operation whose output is not finite; None if all are.

    Example:
      >>> from gradloop.engine.first_nonfinite import find_first_nonfinite
      >>> find_first_nonfinite(engine.train_step, state, next(iter(train_ds))) is None
      True
    """
    state.notes = TraceNotes(accumulation_steps=accumulation_steps)
    try:
        with _checks():
            state.strategy.run(train_step, args=(state, batch))
    except tf.errors.InvalidArgumentError as error:
        if not _OPERATION.search(error.message):
            raise
        return _describe(error)
    return None


def is_finite(values: Any) -> bool:
    """Returns whether all floats of a structure of tensors, on all replicas, are finite."""
    strategy = tf.distribute.get_strategy()
    leaves = tf.nest.flatten(values, expand_composites=True)
    parts = [part for leaf in leaves for part in strategy.experimental_local_results(leaf)]
    return all(_array_is_finite(np.asarray(part)) for part in parts if part is not None)


def weights_are_finite(state: TrainState) -> bool:
    """Returns whether the weights of the model and the slots of its optimizers are finite."""
    variables = [v for o in state.optimizers.values() for v in o.variables]
    variables += state.model.variables
    return all(_array_is_finite(value) for v in variables for value in local_values(v))


def _array_is_finite(array: np.ndarray) -> bool:
    # bfloat16, which NumPy does not know, is no subtype of its floats.
    if array.dtype.kind not in "fV":
        return True
    numbers = array if array.dtype.kind == "f" else array.astype("float32")
    return bool(np.isfinite(numbers).all())


@contextlib.contextmanager
def _checks() -> Iterator[None]:
    is_filtered = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()  # the stack tells the layer
    tf.debugging.enable_check_numerics()
    try:
        yield
    finally:
        tf.debugging.disable_check_numerics()
        if is_filtered:
            keras.config.enable_traceback_filtering()


def _describe(error: tf.errors.InvalidArgumentError) -> FirstNonfinite:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    functions = {frame.f_code.co_name for frame in frames}
    phase = next((phase for name, phase in _PHASES.items() if name in functions), "forward pass")
    operation, shape = _OPERATION.search(error.message), _SHAPE.search(error.message)
    assert operation is not None, error.message
    return FirstNonfinite(
        operation=operation[1],
        phase=phase,
        layer=_innermost_layer(frames) if phase == "forward pass" else None,
        shape="unknown" if shape is None else shape[1],
        counts={kind: int(number) for kind, number in _COUNT.findall(error.message)},
    )


def _innermost_layer(frames: list[FrameType]) -> str | None:
    owners = [frame.f_locals.get("self") for frame in frames]
    layers = [owner for owner in owners if isinstance(owner, keras.Layer)]
    return layers[-1].path if layers else None
