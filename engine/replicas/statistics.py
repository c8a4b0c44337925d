"""Statistics that layers keep beside their weights, such as BatchNormalization's, over replicas.

Each replica updates its own with its part of each batch, so that they drift apart; in fit nothing
ever brings them together, and what is saved are those of the first replica.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from ..state import TrainState
from ..traced_step import copies_of
from ..variables import flatten_extras, layers_of


def statistics_of(state: TrainState) -> list[keras.Variable]:
    """Returns the variables that layers update themselves, and that replicas may differ in.

    These are the floating-point weights of layers that are not trained: of the model, and of models
    among the extras. Layers that are frozen update nothing.
    """
    layers = layers_of([state.model, *flatten_extras(state.extras).values()])
    frozen = {id(weight) for layer in layers if not layer.trainable for weight in layer.weights}
    weights = {id(weight): weight for layer in layers for weight in layer.weights}
    return [
        weight
        for key, weight in weights.items()
        if key not in frozen and not weight.trainable and "float" in weight.dtype
    ]


def average_statistics(state: TrainState) -> None:
    """Gives all replicas the mean of their statistics, over all workers.

    Context: cross-replica, on the host. The sum is made in float64, in which that of a few float32
    numbers has no error: the order does not matter, and what is alike already stays as it is.

    Example:
      >>> from gradloop.engine.replicas.statistics import average_statistics
      >>> average_statistics(state)
    """
    statistics = statistics_of(state)
    if not statistics:
        return
    key = (average_statistics, *map(id, statistics))
    if key not in state.other_functions:
        state.other_functions[key] = tf.function(lambda: _total(statistics, state.strategy))
        # TensorFlow counts the traces of all trainings together.
        state.other_functions[key]._omit_frequent_tracing_warning = True
    sizes = [int(np.prod(one.shape)) for one in statistics]
    means = tf.split(state.other_functions[key]() / state.strategy.num_replicas_in_sync, sizes)
    for one, mean in zip(statistics, means, strict=True):
        value = tf.cast(tf.reshape(mean, one.shape), one.dtype)
        for copy in copies_of(one):
            copy.assign(value)


def _total(statistics: list[keras.Variable], strategy: tf.distribute.Strategy) -> tf.Tensor:
    """Returns the sum over the replicas, of all in one: float64 of rank 1."""

    def all_in_one() -> tf.Tensor:
        flat = [tf.reshape(tf.cast(one.value, tf.float64), [-1]) for one in statistics]
        return tf.concat(flat, axis=0)

    return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(all_in_one), axis=None)


def for_other_replicas(values: list[np.ndarray], num_replicas: int) -> list[np.ndarray]:
    """Returns statistics that were saved, one a replica, for another number of replicas: the mean.

    Args:
      values: One array where all replicas had the same.
      num_replicas: That there are now, over all workers.
    """
    if len(values) in (1, num_replicas):
        return values
    return [np.mean(np.asarray(values, "float64"), axis=0).astype(values[0].dtype)]
