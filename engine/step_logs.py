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


@dataclasses.dataclass
class TraceNotes:
    """What a step does while it is traced, as far as its state sees it.

    Attributes:
      metric_names: Of the metrics, before the step.
      has_updated_metrics: Whether it calls `state.update_metrics`.
      scaled: `id` of each optimizer whose loss scale it uses.
      applied: Likewise, each optimizer with a loss scale that it applies gradients with.
    """

    metric_names: set[str] = dataclasses.field(default_factory=set)
    has_updated_metrics: bool = False
    scaled: set[int] = dataclasses.field(default_factory=set)
    applied: dict[int, Any] = dataclasses.field(default_factory=dict)

    def unscaled_optimizers(self) -> list[Any]:
        """Returns the optimizers that get gradients of a loss without their scale."""
        return [optimizer for key, optimizer in self.applied.items() if key not in self.scaled]


def last(value: Any) -> Last:
    """Makes the history show the last step's value, and not the mean over the epoch.

    Context: replica, in what a step returns. Over several replicas it is the mean of their values.

    Args:
      value: Scalar tensor or number.

    Example:
      >>> def train_step(state, batch):
      ...     logs = engine.train_step(state, batch)
      ...     return {**logs, "num_updates": engine.last(state.optimizer.iterations)}
      >>> history = engine.fit(state, train_ds, config, train_step=train_step)
      >>> history.history["num_updates"]
      [4.0]
    """
    return Last(value)


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
    """Returns whether a value of the logs is a scalar."""
    return isinstance(value, Last) or tf.convert_to_tensor(value).shape.rank == 0


def as_scalar(name: str, value: Any) -> tf.Tensor:
    """Returns a value of the logs as a float tensor; raises ValueError if it is no scalar."""
    value = tf.convert_to_tensor(value.value if isinstance(value, Last) else value)
    if value.shape.rank != 0:
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
