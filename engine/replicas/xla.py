"""XLA under several replicas: on each of them, it compiles all of a step but the update.

XLA cannot compile the exchange between replicas. So forward pass, backward pass and metrics of a
replica are one compiled program, which the gradients leave; they are summed and applied as ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from ..protocols import Logs
from ..state import TrainState
from ..step_logs import Last, Total, flatten_logs
from ..trace_notes import PendingUpdate
from ..traced_step import handles_of


def call_compiled(function: Callable[[], Any]) -> Any:
    """Calls a function as a program that XLA compiles. Context: replica.

    Args:
      function: What it returns are tensors; those of the graph around may be used in it.
    """
    with _exchange_in_words():
        return tf.function(function, autograph=False, jit_compile=True)()


def run_compiled(step: Callable[[], Logs | None], state: TrainState) -> Logs:
    """Runs a step, compiled but for its updates, which come after it. Context: replica.

    Args:
      step: What it logs is flattened.
      state: Its notes are those of this replica.

    Raises:
      ValueError: If the step reads what it has updated, or replicas exchange values in it.
    """
    notes = state.notes.replica
    kinds: dict[str, type[Last | Total]] = {}
    updates: list[PendingUpdate] = []

    def compute() -> Any:
        notes.pending_updates = []
        logs = flatten_logs(step())
        kinds.update({n: type(v) for n, v in logs.items() if isinstance(v, Last | Total)})
        values = {n: tf.convert_to_tensor(v.value if n in kinds else v) for n, v in logs.items()}
        updates[:] = notes.pending_updates
        _check_unread(updates, state)
        tensors = [(update.gradients, update.when) for update in updates]
        return values, tensors, notes.losses

    try:
        values, tensors, notes.losses = call_compiled(compute)
    finally:
        notes.pending_updates = None
    for update, (gradients, when) in zip(updates, tensors, strict=True):
        state.apply_gradients(gradients, update.variables, optimizer=update.optimizer, when=when)
    return {n: kinds[n](value) if n in kinds else value for n, value in values.items()}


def _check_unread(updates: Sequence[PendingUpdate], state: TrainState) -> None:
    """Raises ValueError if the graph uses variables after the update that is to change them."""
    graph = tf.compat.v1.get_default_graph()
    operations = graph.get_operations()
    for update in updates:
        slots = getattr(update.optimizer or state.optimizer, "variables", [])
        variables = (
            state.model.trainable_variables if update.variables is None else update.variables
        )
        changed = {id(h): v for v in [*variables, *slots] for h in handles_of(v)}
        captured = [(id(t), id(handle)) for handle, t in graph.captures]
        inside = {t: changed[handle] for t, handle in captured if handle in changed}
        for operation in operations[update.num_operations :]:
            found = [inside[id(t)] for t in operation.inputs if id(t) in inside]
            if found:
                raise ValueError(
                    f"jit_compile=true under several replicas, and the step uses {found[0].path} "
                    "after state.apply_gradients: XLA compiles all of the step but its updates, "
                    "which come after it. Use it before the update, or set jit_compile=False."
                )


@contextlib.contextmanager
def _exchange_in_words() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "merge_call" not in str(error):
            raise
        raise ValueError(
            "jit_compile=true under several replicas: replicas exchange values in the step, which "
            "XLA cannot compile. Update with state.apply_gradients or state.minimize alone, use no "
            "layers with synchronized=True and no masks (but with uneven='fit'), or set "
            "jit_compile=False."
        ) from error
