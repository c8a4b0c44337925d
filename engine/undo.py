"""Undo: takes back what a step that is left out has changed beside what optimizers update."""

from __future__ import annotations

import tensorflow as tf

from .state import TrainState
from .step_variables import ACCUMULATED
from .traced_step import copies_of, resources_written


class Undo:
    """The values of variables before a step: of statistics, metrics, seeds and recurrent states.

    What optimizers update is not among them: they do not update it. Context: cross-replica.

    Args:
      state: What the step is of.
    """

    def __init__(self, state: TrainState) -> None:
        optimizers = state.optimizers.values()
        updated = {id(v) for o in optimizers for v in [*o.variables, *o._trainable_variables]}
        self._before = [
            (copy, copy.read_value())
            for name, variable in state.named_variables()
            if id(variable) not in updated and not name.startswith(ACCUMULATED)
            for copy in copies_of(variable)
        ]

    def look(self) -> None:
        """Finds out what the step has written, once it is traced: the rest is not put back.

        Otherwise the graph would write every metric, also those that the step does not update.
        """
        if tf.executing_eagerly():
            return
        graph = tf.compat.v1.get_default_graph()
        written = {id(tensor) for tensor in resources_written(graph)}
        self._before = [
            (copy, value)
            for copy, value in self._before
            if id(graph.capture(copy.handle)) in written
        ]

    def __call__(self) -> None:
        """Puts the values back."""
        for copy, value in self._before:
            copy.assign(value)
