"""What a step logs: checked, flattened, and averaged over the epoch where it is no metric."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from .protocols import Batch, Logs


@dataclasses.dataclass(frozen=True)
class Last:
    """A value of a step's logs that is not averaged; see `last`."""

    value: Any


@dataclasses.dataclass(frozen=True)
class Total:
    """A value of a step's logs that is summed; see `total`."""

    value: Any


class StepLogs:
    """Which logs of a step are results of metrics, means or totals over the epoch, or last values.

    Args:
      metrics: The `MetricSet` of the state.

    Attributes:
      names: Of all that the step returns, in order; known once it is traced.
      lasting: Those whose last value is logged, also under the name of a metric.
      averaged: Those whose mean or total over the epoch is logged.
      totals: Of these, the totals.
    """

    def __init__(self, metrics: Any) -> None:
        self._metrics = metrics
        self.names: list[str] = []
        self.averaged: set[str] = set()
        self.totals: set[str] = set()
        self.lasting: set[str] = set()
        self._scalars: set[str] = set()

    def take(self, logs: Logs, metric_names: set[str], num_examples: Any) -> Logs:
        """Notes what a step returns, and adds it to the means that there are. Context: replica.

        Args:
          logs: Flat, of one replica.
          metric_names: Of all metrics.
          num_examples: What a value weighs in a mean, int32 scalar.

        Returns:
          The other values, without the results of metrics: in a graph, their computation is then
          pruned.
        """
        self.names = list(logs)
        self.lasting = {n for n, v in logs.items() if isinstance(v, Last)}
        self.totals = {n for n, v in logs.items() if isinstance(v, Total)}
        # Traced again, a step may log otherwise what was a mean before.
        stay = {n for n in self.averaged if n not in logs or n in self._kept(n)}
        self.averaged = stay - self.lasting
        self._scalars = {n for n, v in logs.items() if is_scalar(v)}
        left = metric_names - (self._scalars if tf.executing_eagerly() else self.averaged)
        left -= self.lasting
        scalars = {n: as_scalar(n, v) for n, v in logs.items() if n not in left}
        self.update_means({n: scalars.pop(n) for n in self.averaged & set(scalars)}, num_examples)
        return scalars

    def add_means(self, names: set[str]) -> None:
        """Creates means over the epoch. Context: cross-replica."""
        for name in sorted(names):
            self._metrics.add_mean(name, sums=name in self.totals)
        self.averaged |= names

    def update_means(self, values: Logs, num_examples: Any) -> None:
        """Adds values, each of which weighs as much as its examples in a mean."""
        for name, value in values.items():
            weight = None if name in self.totals else num_examples
            self._kept(name)[name].update_state(value, sample_weight=weight)

    def results(self) -> Logs:
        """Returns the results of metrics and of the means. Context: cross-replica."""
        results: Logs = self._metrics.results()
        results = {n: value for n, value in results.items() if n not in self.lasting}
        kept = {name: self._kept(name).get(name) for name in self.averaged}
        return results | {name: one.result() for name, one in kept.items() if one is not None}

    def _kept(self, name: str) -> dict[str, Any]:
        """Returns the totals, or the means, as a name was logged."""
        kept: dict[str, Any] = self._metrics.totals if name in self.totals else self._metrics.means
        return kept

    def needed_means(self, metric_names: set[str], unwritten: set[str]) -> set[str]:
        """Returns the names of logs that are no metric's, or of a metric that the step leaves.

        Args:
          metric_names: Of all metrics.
          unwritten: Of those that the step does not update.
        """
        known = metric_names - (unwritten & self._scalars)
        return set(self.names) - known - self.lasting - self.averaged


def last(value: Any) -> Last:
    """Makes the history show the last step's value, and not the mean over the epoch.

    Context: replica, in what a step returns. Over several replicas it is the mean of their values.

    Args:
      value: Scalar tensor or number; or an array, if its shape is known in the graph.

    Example:
      >>> def train_step(state, batch):
      ...     logs = engine.train_step(state, batch)
      ...     return {**logs, "num_updates": engine.last(state.optimizer.iterations)}
      >>> history = engine.fit(state, train_ds, config, train_step=train_step)
      >>> history.history["num_updates"]
      [4.0]
    """
    return Last(value)


def total(value: Any) -> Total:
    """Makes the history show the sum over the steps of the epoch and over the replicas: of counts.

    Context: replica, in what a step returns. Without it, the mean is logged.

    Args:
      value: Scalar tensor or number: what this replica counts in its part of the batch.

    Example:
      >>> def train_step(state, batch):
      ...     logs = engine.train_step(state, batch)
      ...     return {**logs, "num_positive": engine.total(tf.math.count_nonzero(batch[1] > 0))}
      >>> history = engine.fit(state, train_ds, config, train_step=train_step)
      >>> history.history["num_positive"][0].is_integer()
      True
    """
    return Total(value)


def flatten_logs(logs: Any) -> Logs:
    """Returns the logs of a step with the entries of nested dicts in place of these, as in Keras.

    Raises:
      TypeError: If the step returned no dict.
      ValueError: If a value is no scalar.
    """
    if logs is not None and not isinstance(logs, Mapping):
        raise TypeError(
            f"The step returned {logs!r}; it must return its logs, a dict of name to scalar, "
            "or None."
        )
    flat: Logs = {}
    for name, value in (logs or {}).items():
        flat |= flatten_logs(value) if isinstance(value, Mapping) else {name: value}
    return flat


def is_scalar(value: Any) -> bool:
    """Returns whether a value of the logs is a scalar, or says itself how it is logged."""
    return isinstance(value, Last | Total) or tf.convert_to_tensor(value).shape.rank == 0


def as_scalar(name: str, value: Any) -> tf.Tensor:
    """Returns a value of the logs as a float tensor.

    Raises:
      ValueError: If it is no scalar, nor an array of a known shape whose last value is logged.
    """
    is_last = isinstance(value, Last)
    value = tf.convert_to_tensor(value.value if isinstance(value, Last | Total) else value)
    if value.shape.rank != 0 and not (is_last and value.shape.is_fully_defined()):
        raise ValueError(
            f"The step returned {name!r} with shape {value.shape}; logs must be scalars. "
            f"Return tf.reduce_mean({name}), or leave it out."
        )
    # Numbers and truth values have a mean too.
    return value if value.dtype.is_floating else tf.cast(value, tf.float32)


def num_examples(batch: Batch) -> tf.Tensor:
    """Returns the leading dimension of a batch, int32 scalar; 1 where it has none."""
    first = next((part for part in tf.nest.flatten(batch) if part is not None), None)
    if isinstance(first, tf.RaggedTensor):
        return tf.cast(first.nrows(), tf.int32)
    if isinstance(first, tf.SparseTensor):
        return tf.cast(first.dense_shape[0], tf.int32)
    if first is None or not first.shape.rank:
        return tf.constant(1)
    return tf.shape(first)[0]


def count_examples(batch: Batch, strategy: tf.distribute.Strategy) -> tf.Tensor:
    """Returns the leading dimension of a global batch, int32 scalar; 0 where it is not known.

    Context: cross-replica. One of several workers knows its own part alone.
    """
    first = next(iter(tf.nest.flatten(batch)))
    parts = strategy.experimental_local_results(first)
    are_all = len(parts) == strategy.num_replicas_in_sync  # else on several workers
    if not are_all or not all(isinstance(p, tf.Tensor) and p.shape.rank for p in parts):
        return tf.constant(0)
    return tf.add_n([tf.shape(part)[0] for part in parts])
