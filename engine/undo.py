"""Undo: takes back what a step has changed beside what optimizers update.

All of it, where a step is left out; on one replica alone, where what the step wrote there is void:
the replica has got no example, say. What is void, the step says while it is traced, in
`notes.replica.voids`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from .replicas.statistics import statistics_of
from .state import TrainState
from .step_variables import ACCUMULATED, LOSS_SCALING, SEEDS
from .traced_step import copies_of, resources_written


class _Saved(NamedTuple):
    """A variable on one replica, and its value before the step."""

    replica: int
    copy: tf.Variable
    value: tf.Tensor
    is_own: bool  # what a layer or a metric has found in the examples of this replica alone
    is_seed: bool


class Undo:
    """The values of variables before a step: of statistics, metrics, seeds and recurrent states.

    What optimizers update is not among them: they do not update it. Context: cross-replica.

    Args:
      state: What the step is of.
    """

    def __init__(self, state: TrainState) -> None:
        optimizers = state.optimizers.values()
        updated = {id(v) for o in optimizers for v in [*o.variables, *o._trainable_variables]}
        found = [*statistics_of(state), *state.metrics.variables()]
        own = {id(variable) for variable in found} - _ids_of_shared(state.model)
        self._before = [
            _Saved(
                replica,
                copy,
                copy.read_value(),
                is_own=id(variable) in own and not _is_shared(variable),
                is_seed=variable.name in SEEDS,
            )
            for name, variable in state.named_variables()
            if id(variable) not in updated and not name.startswith((ACCUMULATED, LOSS_SCALING))
            for replica, copy in enumerate(copies_of(variable))
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
            saved for saved in self._before if id(graph.capture(saved.copy.handle)) in written
        ]

    def __call__(self) -> None:
        """Puts the values back."""
        _put_back(self._before)

    def where(self, condition: tf.Tensor) -> None:
        """Puts back all but the seeds on all replicas, where a condition holds; call `look` first.

        The step has drawn its random numbers: the next one draws others, as in fit.
        """
        found = [saved for saved in self._before if not saved.is_seed]
        tf.cond(condition, functools.partial(_put_back, found), lambda: tf.constant(False))

    def where_void(self, voids: Sequence[tf.Tensor]) -> None:
        """Puts back what each replica alone has written, where it is void; call `look` before.

        Args:
          voids: Boolean scalars, one for each replica of this process.
        """
        for replica, void in enumerate(voids):
            own = [saved for saved in self._before if saved.replica == replica and saved.is_own]
            if own:
                tf.cond(void, functools.partial(_put_back, own), lambda: tf.constant(False))


def _put_back(before: Sequence[_Saved]) -> tf.Tensor:
    for saved in before:
        saved.copy.assign(saved.value)
    return tf.constant(True)


def _ids_of_shared(model: keras.Model) -> set[int]:
    """Returns the `id` of variables that are also written where there is no example.

    These are the statistics that synchronized layers find over all replicas, and the loss of each
    output, of which Keras counts the batches on each replica.
    """
    layers: Any = [one for one in model._flatten_layers() if getattr(one, "synchronized", False)]
    losses = getattr(model, "_compile_loss", None)
    of_layers = [variable for layer in layers for variable in layer.non_trainable_variables]
    of_losses = [v for metric in losses.metrics for v in metric.variables] if losses else []
    return {id(variable) for variable in [*of_layers, *of_losses]}


def _is_shared(variable: keras.Variable) -> bool:
    """Returns whether TensorFlow keeps a variable alike on all replicas."""
    agrees: bool = variable.aggregation != "none" and variable.synchronization != "on_read"
    return agrees
