"""TrainState: everything that a training run reads, writes and must save.

In the way of a batch: first. It owns the model, the optimizer, the loss, the metrics and whatever
else a step uses. What a step does with them is in `step_pieces`; `step` puts the pieces together.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .arguments import check_model
from .building import build_model, compile_model
from .compiled_updates import CompiledUpdates
from .history import Progress
from .metric_set import MetricSet
from .protocols import Logs
from .resumption import Resumption
from .step_pieces import StepPieces
from .step_variables import StepVariables
from .trace_notes import TraceNotes
from .variables import (
    METRICS_PREFIX,
    NamedValues,
    NamedVariables,
    check_extras,
    digest,
    flatten_extras,
    layers_of,
    local_values,
    name_variables,
)
from .workers.peers import Peers
from .workers.values import values_of_all


class TrainState(StepPieces):
    """Owner of every variable that a step reads or writes, with the pieces that steps are made of.

    Create it inside `strategy.scope()`: the optimizer and the metrics create their variables here,
    and under a strategy these must be distributed like the model's. The structures of losses and
    metrics go through `model.compile`, so that they mean what they mean in `keras.Model.fit`.

    A compiled model is taken as it is; what is given here replaces exactly that, in the model too.
    A model that is not compiled stays so if nothing is given: it can predict, or be trained by a
    step that brings loss and optimizer.

    Args:
      model: The model to train. It may be unbuilt; `fit` builds it from the dataset.
      optimizer: As in `compile`. Under the policy `mixed_float16` Keras wraps it in a
        `LossScaleOptimizer`, which is then `state.optimizer`.
      loss: As in `compile`. None for a model whose losses all come from `add_loss`, or for a train
        step that computes its own.
      metrics: As in `compile`: not weighted by the sample weights.
      weighted_metrics: As in `compile`: weighted by the sample weights.
      loss_weights: As in `compile`: one factor an output.
      extras: Whatever else a custom step reads or writes, by name: models, optimizers, metrics,
        variables, or dicts and lists of them. They are saved with the rest. Optimizers among them
        must be built.

    Raises:
      ValueError: If the model was created in another scope, an optimizer in `extras` is not built,
        or a name in `extras` is taken.

    Example:
      >>> state = engine.TrainState(build_model(), "sgd", loss="mse")
      >>> state.build(train_ds.element_spec)
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer | str | None = None,
        *,
        loss: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        loss_weights: Any = None,
        extras: Mapping[str, Any] | None = None,
    ) -> None:
        self.strategy = tf.distribute.get_strategy()
        self.has_scope = tf.distribute.has_strategy()
        self.peers = Peers(self.strategy)
        check_model(model)
        _check_scope(model, self.strategy if self.has_scope else None)
        check_extras(flatten_extras(extras or {}))
        self.model = model
        self.progress = Progress()
        self.resumption = Resumption()
        self.is_built = False
        self._has_sparse_gradients: bool | None = None  # known once a step is traced
        self.functions: dict[Any, Any] = {}  # the loop's cache of compiled functions: of steps
        self.other_functions: dict[Any, Any] = {}  # those of `predict` and `average_statistics`
        self.extras = dict(extras or {})
        self._flat_extras = flatten_extras(self.extras)
        compile_model(
            model,
            optimizer=optimizer,
            loss=loss,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            loss_weights=loss_weights,
        )
        self.optimizer = model.optimizer if model.compiled else None
        # Not the first of `model.metrics`, which a model may override.
        self.loss_tracker = model._loss_tracker if model.compiled else None
        self.metrics = MetricSet(model, self._flat_extras, self.strategy)
        self.step_variables = StepVariables(self.strategy, self.optimizers)
        self._watched: list[keras.Layer | keras.Variable] = []
        self.compiled_updates = CompiledUpdates()
        self.notes = TraceNotes()
        self._call_takes_training = "training" in inspect.signature(model.call).parameters
        self._loss_takes_training = "training" in inspect.signature(model.compute_loss).parameters

    def build(self, element_spec: Any) -> None:
        """Creates every variable that is still missing: of layers, optimizer and metrics.

        Context: cross-replica. Otherwise the compiled function would create variables, which
        `tf.distribute` does not allow.

        Args:
          element_spec: `dataset.element_spec`, a structure of `tf.TensorSpec`.
        """
        self.is_built = True
        with self.strategy.scope():
            build_model(self, element_spec)
            self.step_variables.build()
        named = self.named_variables()
        variables = [v for name, v in named if not name.startswith(METRICS_PREFIX)]
        # A layer that is frozen stops updating its statistics, too: no variable tells of that.
        self._watched = [*layers_of([self.model, *self._flat_extras.values()]), *variables]

    def trace_key(self) -> str:
        """Returns a word that changes with what a graph of a step depends on beside its batch."""
        trainable = "".join("01"[one.trainable] for one in self._watched)
        return f"{trainable} {self.watched_gradients}"

    def trace_aspects(self) -> dict[str, Any]:
        """Returns the same for people: what is trainable, and what is watched."""
        found = [one for one in self._watched if one.trainable]
        trainable = tuple(getattr(one, "path", None) or one.name for one in found)
        return {"trainable": trainable, "gradient norms": self.watched_gradients}

    @property
    def may_loop(self) -> bool:
        """Whether an execution may have several steps; under replicas, known once one is traced.

        Replicas gather the rows of sparse gradients, whose number changes from batch to batch. In a
        loop, TensorFlow takes that for a fault of the collective and aborts.
        """
        return self.strategy.num_replicas_in_sync == 1 or self._has_sparse_gradients is False

    def reset_metrics(self) -> None:
        """Resets the metrics of the model and those in `extras`. Context: cross-replica."""
        self.metrics.reset()

    def metrics_result(self) -> Logs:
        """Returns the result of each metric by name, over all replicas. Context: cross-replica."""
        return self.metrics.results()

    @property
    def optimizers(self) -> dict[str, keras.optimizers.Optimizer]:
        """The optimizer, if there is one, and those in `extras`, by name."""
        own = {} if self.optimizer is None else {"optimizer": self.optimizer}
        kind = keras.optimizers.Optimizer
        return own | {n: extra for n, extra in self._flat_extras.items() if isinstance(extra, kind)}

    def learning_rate(self) -> Any:
        """Returns the current learning rate of the optimizer, scalar; None where there is not one.

        Context: cross-replica, on the host. The host does not wait for the device.
        """
        if self.optimizer is None or not self.optimizer.built:
            return None
        rate = getattr(self.optimizer, "learning_rate", None)
        if rate is None:  # of several optimizers in one
            return None
        value = rate.value if isinstance(rate, keras.Variable) else rate
        return tf.convert_to_tensor(self.strategy.experimental_local_results(value)[0])

    def create_named(self, names: Collection[str]) -> None:
        """Creates what only a traced step creates, as far as these names of variables tell of it.

        Context: cross-replica.
        """
        self.metrics.create_named(names)
        self.step_variables.create_named(names)

    def named_variables(self) -> NamedVariables:
        """Returns every variable that must be saved, each once, with a unique and stable name.

        The names are `model/<path>`, `optimizer/<path>`, `<extra>/<path>` and `metrics/<path>`. The
        states of seed generators (dropout) are among them.
        """
        owners = {"model": self.model, "optimizer": self.optimizer or [], **self._flat_extras}
        owners |= self.step_variables.owners()
        return name_variables(owners | {"metrics": self.metrics.own_variables()})

    def values_to_save(self, variable: keras.Variable) -> list[np.ndarray]:
        """Returns a variable's values as `variables.local_values` does.

        During an evaluation, those of a metric are of the training, which goes on with them.
        """
        return self.metrics.kept_values(variable) or local_values(variable)

    def saved_values(self, named: NamedVariables) -> NamedValues:
        """Returns the names and values of variables on the replicas of all workers.

        Context: cross-replica, on the host, on all workers; see `workers.values.values_of_all`.
        """
        optimizers = tuple(f"{name}/" for name in self.optimizers)
        return values_of_all(self.peers, named, self.values_to_save, optimizers)

    @property
    def writes(self) -> bool:
        """Whether this process writes the files of the run: the only one, or the chief."""
        return self.peers.is_chief

    def weights_sha256(self) -> str:
        """Returns a digest of all model variables in order: path, dtype, shape, bytes.

        Context: cross-replica, on all workers. Where replicas differ, it is of all their values.
        """
        variables = self.model.variables
        values = self.saved_values([(str(i), one) for i, one in enumerate(variables)])
        return digest((v.path, arrays) for v, (_, arrays) in zip(variables, values, strict=True))


def _check_scope(model: keras.Model, strategy: tf.distribute.Strategy | None) -> None:
    if model._distribute_strategy is not strategy:
        raise ValueError(
            "The model and its TrainState must be created in the same strategy.scope(): otherwise "
            "the variables of the one cannot be used with those of the other."
        )
