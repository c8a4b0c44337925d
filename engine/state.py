"""TrainState: everything that a training run reads, writes and must save.

In the way of a batch: first. It owns the model, the optimizer, the loss, the metrics and whatever
else a step uses, and offers the pieces that a step is made of; `step` puts them together, and
`gradients` does what `apply_gradients` says.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from . import gradients as gradients_lib
from .building import build_model, compile_model
from .history import Progress
from .metric_set import MetricSet
from .protocols import Logs
from .step_logs import TraceNotes
from .variables import (
    METRICS_PREFIX,
    NamedVariables,
    check_extras,
    digest,
    name_variables,
)


class TrainState:
    """Owner of every variable that a step reads or writes.

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
        variables. They are saved with the rest. Optimizers among them must be built.

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
        _check_scope(model, self.strategy if self.has_scope else None)
        check_extras(extras or {})
        self.model = model
        self.progress = Progress()
        self.is_built = False
        self._has_sparse_gradients: bool | None = None  # known once a step is traced
        self.functions: dict[Any, Any] = {}  # the loop's cache of compiled functions
        self.extras = dict(extras or {})
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
        self._loss_tracker = model._loss_tracker if model.compiled else None
        self.metrics = MetricSet(model, self.extras, self.strategy)
        self._watched: list[keras.Variable] = []
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
        named = self.named_variables()
        self._watched = [v for name, v in named if not name.startswith(METRICS_PREFIX)]

    def call_model(self, x: Any, *, training: bool) -> Any:
        """Returns the outputs of the model for one batch, called as `fit` calls it.

        Context: replica. If `call` takes no `training` argument, none is passed; the layers of such
        a model are not in training mode, as in `fit`.
        """
        kwargs = {"training": training} if self._call_takes_training else {}
        return self.model(x, **kwargs)

    def compute_loss(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None, *, training: bool = True
    ) -> tf.Tensor:
        """Returns the loss of one batch, including regularizers and `add_loss`.

        Context: replica. Keras divides mean-type losses by the number of replicas: the sum over the
        replicas, which the optimizer takes, is the mean over the global batch. Do not divide again.

        Returns:
          Scalar in the dtype of the loss (float32 by default).
        """
        kwargs = {"training": training} if self._loss_takes_training else {}
        return self.model.compute_loss(
            x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, **kwargs
        )

    def scale_loss(
        self, loss: tf.Tensor, *, optimizer: keras.optimizers.Optimizer | None = None
    ) -> tf.Tensor:
        """Multiplies the loss by the loss scale; `apply_gradients` divides by it again.

        Context: replica. The scale is 1 except under `mixed_float16`.
        """
        optimizer = optimizer or self.optimizer
        self.notes.scaled.add(id(optimizer))
        return loss if optimizer is None else optimizer.scale_loss(loss)

    def apply_gradients(
        self,
        gradients: Iterable[tf.Tensor | tf.IndexedSlices | None],
        variables: Iterable[keras.Variable] | None = None,
        *,
        optimizer: keras.optimizers.Optimizer | None = None,
    ) -> None:
        """Unscales, clips and reduces the gradients over the replicas, and updates the variables.

        Context: replica. Pass the gradients of this replica as they come from the tape.

        Args:
          gradients: One a variable; None where the loss does not depend on it.
          variables: Default: the trainable variables of the model.
          optimizer: Default: `state.optimizer`.

        Raises:
          ValueError: If there are no variables, or no variable has a gradient.
        """
        gradients = list(gradients)
        # Once sparse, always sparse: a step may update several times, each with its own optimizer.
        is_sparse = any(isinstance(gradient, tf.IndexedSlices) for gradient in gradients)
        self._has_sparse_gradients = bool(self._has_sparse_gradients) or is_sparse
        optimizer = optimizer or self.optimizer
        if optimizer is None:
            raise ValueError(
                "The state has no optimizer: pass one to TrainState(model, optimizer), or compile "
                "the model."
            )
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            self.notes.applied[id(optimizer)] = optimizer
        gradients_lib.apply_gradients(
            optimizer,
            gradients,
            list(self.model.trainable_variables if variables is None else variables),
        )

    def update_metrics(
        self, loss: tf.Tensor, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> Logs:
        """Adds one batch to the loss tracker and the compiled metrics.

        Context: replica.

        Args:
          loss: What `compute_loss` returned.
          x: Inputs; the size of the first one is the weight of the loss, as in Keras.
          y: Targets.
          y_pred: What the model returned.
          sample_weight: For `weighted_metrics` alone.

        Returns:
          Metric name to scalar. The loop uses the names and computes the results at log
          boundaries; the graph optimizer prunes the computation here.
        """
        self.notes.has_updated_metrics = True
        if self._loss_tracker is not None:
            num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
            if num_replicas > 1:
                loss = loss * tf.cast(num_replicas, loss.dtype)
            first_input = next(i for i in tf.nest.flatten(x) if i is not None)
            self._loss_tracker.update_state(loss, sample_weight=tf.shape(first_input)[0])
        logs: Logs = self.model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
        return logs

    def trainable_key(self) -> str:
        """Returns a word that changes when a variable becomes trainable or stops being so."""
        return "".join("01"[variable.trainable] for variable in self._watched)

    def trainable_paths(self) -> list[str]:
        """Returns the paths of the trainable variables."""
        return [variable.path for variable in self._watched if variable.trainable]

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
    def optimizers(self) -> list[keras.optimizers.Optimizer]:
        """The optimizer, if there is one, and those in `extras`."""
        own = [] if self.optimizer is None else [self.optimizer]
        kind = keras.optimizers.Optimizer
        return [*own, *(extra for extra in self.extras.values() if isinstance(extra, kind))]

    def named_variables(self) -> NamedVariables:
        """Returns every variable that must be saved, each once, with a unique and stable name.

        The names are `model/<path>`, `optimizer/<path>`, `<extra>/<path>` and `metrics/<path>`. The
        states of seed generators (dropout) are among them.
        """
        owners = {"model": self.model, "optimizer": self.optimizer or [], **self.extras}
        return name_variables(owners | {"metrics": self.metrics.own_variables()})

    def weights_sha256(self) -> str:
        """Returns a digest of all model variables in order: path, dtype, shape, bytes."""
        return digest(self.model.variables)


def _check_scope(model: keras.Model, strategy: tf.distribute.Strategy | None) -> None:
    if model._distribute_strategy is not strategy:
        raise ValueError(
            "The model and its TrainState must be created in the same strategy.scope(): otherwise "
            "the variables of the one cannot be used with those of the other."
        )
