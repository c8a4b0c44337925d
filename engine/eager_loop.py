"""The loop of `run_eagerly`: steps in Python, for a person with a debugger."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from .grouping import Group
from .patching import patched
from .protocols import Batch, Logs
from .state import TrainState
from .step_logs import StepLogs, count_examples
from .variables import local_values


def loop_eagerly(
    one_step: Callable[[Batch], Logs],
    iterator: Any,
    num_steps: tf.Tensor,
    state: TrainState,
    step_logs: StepLogs,
) -> tuple[int, Logs]:
    """Runs `one_step` until `num_steps` are done or the data ends.

    No graph tells which metrics a step leaves alone: it is seen by their variables, which
    nothing is assigned to.

    Returns:
      The number of steps done, and the logs of the last one.
    """
    num_done, logs = 0, {}
    while num_done < num_steps:
        batch = iterator.get_next_as_optional()
        if not batch.has_value():
            break
        before = _values(state)
        with _noting_assigned() as assigned:
            logs = one_step(batch.get_value())
        num_done += 1
        left = {name for name, value in _values(state).items() if value == before[name]}
        metrics = state.metrics.named()
        unwritten = {n for n in left if assigned.isdisjoint(map(id, metrics[n].variables))}
        if state.notes.has_updated_metrics:
            unwritten = set()
        needed = step_logs.needed_means(set(state.metrics_result()), unwritten)
        step_logs.add_means(needed)
        # With the next step, the means get their values on each replica.
        batches = batch.get_value() if isinstance(batch, Group) else (batch.get_value(),)
        weight = tf.add_n([tf.maximum(count_examples(b, state.strategy), 1) for b in batches])
        step_logs.update_means({name: logs[name] for name in needed}, weight)
    return num_done, logs


@contextlib.contextmanager
def _noting_assigned() -> Iterator[set[int]]:
    """Gives the `id` of each Keras variable that is assigned, be it the value that it has."""
    by_keras = keras.Variable.assign
    assigned: set[int] = set()

    def assign(self: keras.Variable, value: Any) -> Any:
        assigned.add(id(self))
        return by_keras(self, value)

    with patched(keras.Variable, assign=assign):
        yield assigned


def _values(state: TrainState) -> dict[str, list[bytes]]:
    return {
        name: [array.tobytes() for v in metric.variables for array in local_values(v)]
        for name, metric in state.metrics.named().items()
    }
