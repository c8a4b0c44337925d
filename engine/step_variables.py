"""StepVariables: what a step needs beside the variables of model, optimizer and metrics.

Which of these a step uses is known once it is traced, and no step can create variables: they are
created between two traces, or when a checkpoint that has them is restored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR, global_seed_generator
from keras.src.utils.rng_utils import get_random_seed

from .accumulation import Accumulation
from .gradients import Guard
from .loss_scaling import LossScaling
from .nonfinite import NonfiniteRecord
from .trace_notes import TraceNotes

ACCUMULATED = "accumulated/"
SEEDS = ("seeds", "seed_generator_state")  # names of variables that say what is drawn next
LOSS_SCALING = "loss_scaling/"
_SEEDS = "step"
_RANDOM = "random"


class StepVariables:
    """Seeds, sums of gradients, and the record of steps that are left out.

    Among the seeds is the state of Keras's own generator, which `keras.random` draws from where it
    is given no seed: Keras makes one for the whole process, once somebody needs it.

    Context: cross-replica, but where a method says otherwise.

    Args:
      strategy: In whose scope they are created.
      optimizers: By name, those whose gradients may be accumulated.

    Attributes:
      record: Of steps that are left out, which no checkpoint has: hooks keep what it says. None
        while no step needs it.
      loss_scalings: Of the optimizers that scale the loss, by name.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        optimizers: Mapping[str, keras.optimizers.Optimizer],
    ) -> None:
        self._strategy = strategy
        self._optimizers = optimizers
        self._accumulations: dict[str, Accumulation] = {}
        self._seeds: Seeds | None = None
        self.record: NonfiniteRecord | None = None
        self.loss_scalings: dict[str, LossScaling] = {}

    def build(self) -> None:
        """Creates what does not depend on the step, once the optimizers are built."""
        for key, optimizer in self._optimizers.items():
            is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
            if is_scaled and key not in self.loss_scalings:
                self.loss_scalings[key] = LossScaling(optimizer)

    def name_of(self, optimizer: keras.optimizers.Optimizer) -> str | None:
        """Returns the name of an optimizer in the state; None for one that it does not have."""
        return next((name for name, one in self._optimizers.items() if one is optimizer), None)

    def owners(self) -> dict[str, Any]:
        """Returns the variables that there are, by the first part of their names."""
        owners: dict[str, Any] = {
            ACCUMULATED + key: one.variables for key, one in self._accumulations.items()
        }
        owners |= {LOSS_SCALING + key: [one.counts] for key, one in self.loss_scalings.items()}
        if self._seeds is not None:
            owners[_SEEDS] = [self._seeds.variable]
        if (generator := get_global_attribute(GLOBAL_SEED_GENERATOR)) is not None:
            owners[_RANDOM] = {
                "seed_generator_state": generator.state
            }  # Its path may be a layer's.
        return owners

    def create_named(self, names: Collection[str]) -> None:
        """Creates those that variables of these names belong to."""
        if any(name.startswith(f"{_SEEDS}/") for name in names):
            self._create_seeds()
        if any(name.startswith(f"{_RANDOM}/") for name in names):
            with self._strategy.scope():
                global_seed_generator()
        for key in self._optimizers:
            if any(name.startswith(f"{ACCUMULATED}{key}/") for name in names):
                self._create_accumulation(key)

    def seed(self, notes: TraceNotes) -> tf.Tensor:
        """Returns a seed, int64 `[2]`. Context: replica."""
        notes.replica.num_seeds += 1
        notes.takes_seeds = True
        if self._seeds is None:
            notes.want(_SEEDS, self._create_seeds)
        return self._seeds.take(notes.replica.num_seeds) if self._seeds else tf.zeros([2], tf.int64)

    def num_skipped(self) -> tf.Tensor | None:
        """Returns how many updates the loss scales have skipped until now; None without any."""
        scalings = self.loss_scalings.values()
        return tf.add_n([one.num_skipped() for one in scalings]) if scalings else None

    def loss_scale_logs(self) -> dict[str, tf.Tensor]:
        """Returns the loss scale and the number of skipped steps of each optimizer, by name.

        Context: replica.
        """
        return {
            ("" if key == "optimizer" else f"{key}/") + name: value
            for key, scaling in self.loss_scalings.items()
            for name, value in scaling.logs().items()
        }

    def guard(self, notes: TraceNotes) -> Guard | None:
        """Returns what lets updates be made only where all is finite; None if nothing is checked.

        Context: replica.
        """
        if not notes.checks_finite:
            return None
        if self.record is None:
            notes.want("nonfinite", self._create_record)
        return None if self.record is None else Guard(self.record, notes.replica.losses)

    def advance_seeds(self) -> None:
        """Goes to the seeds of the next step."""
        if self._seeds is not None:
            self._seeds.advance()

    def accumulate(
        self,
        notes: TraceNotes,
        optimizer: keras.optimizers.Optimizer,
        gradients: Sequence[Any],
        variables: Sequence[keras.Variable],
    ) -> None:
        """Adds gradients to those of the batches before. Context: replica.

        Raises:
          ValueError: If the optimizer is not one of the state, accumulates itself, or has been
            called for other variables in the same step.
        """
        key = self.name_of(optimizer)
        if key is None:
            raise ValueError(
                f"gradient_accumulation_steps={notes.accumulation_steps}, and the step updates "
                f"with {optimizer.name}, which the state does not have: pass it in "
                "TrainState(extras={...}), built."
            )
        if getattr(optimizer, "inner_optimizer", optimizer).gradient_accumulation_steps:
            raise ValueError(
                f"gradient_accumulation_steps={notes.accumulation_steps} in the config, and "
                f"{optimizer.name} has its own: leave one of them out."
            )
        present, updated = optimizer._filter_empty_gradients(gradients, variables)
        ids = {id(variable) for variable in updated}
        if notes.accumulated.setdefault(key, ids) != ids:
            raise ValueError(
                f"gradient_accumulation_steps={notes.accumulation_steps}, and the step updates "
                f"with {optimizer.name} several times, each time other variables: there is one "
                "window an optimizer. Use an optimizer for each, in TrainState(extras={...}), "
                "built, or make one update of all."
            )
        if key not in self._accumulations:
            notes.want(ACCUMULATED + key, lambda: self._create_accumulation(key))
        guard, share = self.guard(notes), notes.replica.share
        if key in self._accumulations:
            self._accumulations[key].add_batch(
                present,
                updated,
                num_examples=notes.replica.num_taken if share is None else share.even_part,
                num_batches=notes.accumulation_steps,
                guard=guard,
            )

    def finish_windows(self) -> None:
        """Updates with the gradients of windows that will not be full. Context: replica."""
        for accumulation in self._accumulations.values():
            accumulation.finish()

    def clear(self) -> None:
        """Empties the windows, and begins with the first seeds again."""
        for accumulation in self._accumulations.values():
            accumulation.clear()
        if self._seeds is not None:
            self._seeds.variable.assign(self._seeds.variable.value * tf.constant([1, 0], tf.int64))
        if self.record is not None:
            self.record.clear()
        for scaling in self.loss_scalings.values():
            scaling.clear()

    @property
    def has_open_window(self) -> bool:
        """Whether there are gradients that no update has used yet."""
        return any(accumulation.is_open for accumulation in self._accumulations.values())

    def _create_seeds(self) -> None:
        with self._strategy.scope():
            self._seeds = self._seeds or Seeds()

    def _create_record(self) -> None:
        trained = [v for o in self._optimizers.values() for v in o._trainable_variables]
        with self._strategy.scope():
            self.record = self.record or NonfiniteRecord(list({id(v): v for v in trained}.values()))

    def _create_accumulation(self, key: str) -> None:
        if key not in self._accumulations:
            with self._strategy.scope():
                self._accumulations[key] = Accumulation(self._optimizers[key])


class Seeds:
    """Seeds from the seed of the run, the step, the replica, and the number of the call in a step.

    Context: cross-replica, inside the scope of the strategy. The global seed of Keras is that of
    the run; without one, it is drawn, and saved with the rest.

    Attributes:
      variable: int64 `[2]`: the seed of the run, and how many steps have taken seeds.
    """

    def __init__(self) -> None:
        seed = get_random_seed()
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31))
        self.variable = keras.Variable([seed, 0], trainable=False, dtype="int64", name="seeds")

    def take(self, number: int) -> tf.Tensor:
        """Returns int64 `[2]`. Context: replica.

        Args:
          number: Of the call in this step.
        """
        seed, step = tf.unstack(tf.convert_to_tensor(self.variable.value))
        context: Any = tf.distribute.get_replica_context()
        replica = tf.cast(context.replica_id_in_sync_group, tf.int64)
        fold_in = tf.random.experimental.stateless_fold_in
        return fold_in(fold_in(tf.stack([seed, number]), step), replica)

    def advance(self) -> None:
        """Goes to the next step. Context: cross-replica."""
        self.variable.assign(self.variable.value + tf.constant([0, 1], tf.int64))
