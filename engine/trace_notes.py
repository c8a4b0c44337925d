"""TraceNotes: what a step does while it is traced, as far as its state sees it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from .protocols import Logs
from .replicas.uneven import Share, share_of


class PendingUpdate(NamedTuple):
    """A call of `state.apply_gradients` in a program of XLA, which is made after it.

    Attributes:
      gradients: As they were passed, like the others.
      variables: None: those of the model.
      optimizer: None: that of the state.
      when: Whether to update; None: always.
      num_operations: Of the graph, when it was called.
    """

    gradients: list[Any]
    variables: list[keras.Variable] | None
    optimizer: keras.optimizers.Optimizer | None
    when: Any
    num_operations: int


@dataclasses.dataclass
class ReplicaNotes:
    """What a step does on one replica while it is traced.

    Attributes:
      num_examples: Of this replica's part of the batch, int32 scalar.
      num_seeds: How many seeds it takes.
      share: What the replica has of the batches that it has taken since its last update; None where
        examples are not weighed.
      logs: What the state logs beside the step.
      losses: Those that it has scaled, before that.
      voids: Boolean scalars. Where one holds, all that the step has written into metrics and
        statistics on this replica is put back at its end.
      pending_updates: Where updates wait for the end of a program; None: they are made at once.
      num_open_means: Losses that are means and are being computed, one inside another.
    """

    num_examples: Any = 1
    num_seeds: int = 0
    share: Share | None = None
    logs: Logs = dataclasses.field(default_factory=dict)
    losses: list[Any] = dataclasses.field(default_factory=list)
    voids: list[tf.Tensor] = dataclasses.field(default_factory=list)
    pending_updates: list[PendingUpdate] | None = None
    num_open_means: int = 0
    _taken: list[tf.Tensor] = dataclasses.field(default_factory=list)
    _begins_share: bool = True

    @property
    def num_taken(self) -> Any:
        """Examples of the batches that it has taken since its last update, int32 scalar."""
        return tf.add_n(self._taken) if self._taken else self.num_examples

    def add_examples(self, num_examples: tf.Tensor) -> None:
        """Notes that the replica has taken one of several batches, where it has no share."""
        self._taken = [*([] if self._begins_share else self._taken), num_examples]
        self._begins_share = False

    def add_share(self, share: Share) -> None:
        """Notes that the replica has taken a batch."""
        if self.share is not None and not self._begins_share:
            here = self.share.num_here + share.num_here
            share = share_of(here, self.share.num_global + share.num_global)
        self.share, self._begins_share = share, False

    def add_loss(self, loss: Any) -> None:
        """Notes a loss before it is scaled; that of no example is 0, and so finite."""
        if self.share is not None:
            loss = tf.where(self.share.is_empty, tf.zeros_like(loss), loss)
        self.losses.append(loss)

    def delay_update(self, gradients: Any, variables: Any, optimizer: Any, when: Any) -> bool:
        """Keeps a call of `state.apply_gradients` for later, if updates wait."""
        if self.pending_updates is None:
            return False
        num_operations = len(tf.compat.v1.get_default_graph().get_operations())
        variables = None if variables is None else list(variables)
        self.pending_updates.append(
            PendingUpdate(list(gradients), variables, optimizer, when, num_operations)
        )
        return True

    def end_share(self) -> None:
        """Notes that what it has taken was used for an update, or that the step ends."""
        if self.share is not None and not self._begins_share:
            self.voids.append(self.share.is_empty)
        self._begins_share = True


@dataclasses.dataclass
class TraceNotes:
    """What a step does while it is traced, as far as its state sees it.

    Attributes:
      metric_names: Of the metrics of the model, before the step.
      accumulation_steps: Batches whose gradients are one update.
      checks_finite: Whether an update is left out where a gradient or the loss is not finite.
      has_updated_metrics: Whether it calls `state.update_metrics`.
      has_applied: Whether it calls `state.apply_gradients`.
      takes_seeds: Whether it calls `state.seed`.
      scaled: `id` of each optimizer whose loss scale it uses.
      applied: Likewise, each optimizer that it applies gradients with.
      accumulated: Name of an optimizer to the `id` of each variable that it accumulates for.
      wanted: Name to what creates the variables that it needs beside those of the state. No step
        can create them: this is done outside, and the step is traced again.
    """

    metric_names: set[str] = dataclasses.field(default_factory=set)
    accumulation_steps: int = 1
    checks_finite: bool = False
    has_updated_metrics: bool = False
    has_applied: bool = False
    takes_seeds: bool = False
    scaled: set[int] = dataclasses.field(default_factory=set)
    applied: dict[int, Any] = dataclasses.field(default_factory=dict)
    accumulated: dict[str, set[int]] = dataclasses.field(default_factory=dict)
    wanted: dict[str, Callable[[], None]] = dataclasses.field(default_factory=dict)
    _replicas: dict[int, ReplicaNotes] = dataclasses.field(default_factory=dict)

    @property
    def replica(self) -> ReplicaNotes:
        """Notes of the replica that is being traced: each one has a thread."""
        return self._replicas.setdefault(threading.get_ident(), ReplicaNotes())

    def want(self, name: str, create: Callable[[], None]) -> None:
        """Lets variables be created; at once where no graph is being built. Context: replica."""
        if tf.executing_eagerly():
            tf.distribute.get_replica_context().merge_call(lambda strategy: create())
        else:
            self.wanted[name] = create

    def unscaled_optimizers(self) -> list[Any]:
        """Returns the optimizers that get gradients of a loss without their scale."""
        kind = keras.optimizers.LossScaleOptimizer
        return [
            o for key, o in self.applied.items() if isinstance(o, kind) and key not in self.scaled
        ]
