"""TrainState: everything that a training run reads, writes and must save."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from engine import gradients as gradients_lib

METRICS_PREFIX = "metrics/"

Logs = dict[str, Any]
Batch = Any

_KINDS_OF_EXTRAS = (
    keras.layers.Layer,
    keras.optimizers.Optimizer,
    keras.metrics.Metric,
    keras.Variable,
    keras.random.SeedGenerator,
)


@dataclasses.dataclass
class Progress:
    """How far a run has come. The loop adds, hooks read, the checkpoint saves.

    Attributes:
      epoch: Index of the current epoch, from 0.
      step: Steps completed within the current epoch.
      num_steps_completed: Steps completed over the whole run.
      num_epochs_completed: Epochs completed over the whole run.
      num_epochs: Index of the last epoch of this run, plus one.
      steps_per_epoch: Steps in one epoch; None while it is unknown.
    """

    epoch: int = 0
    step: int = 0
    num_steps_completed: int = 0
    num_epochs_completed: int = 0
    num_epochs: int = 0
    steps_per_epoch: int | None = None


class TrainState:
    """Owner of every variable that a step reads or writes.

    Create it inside `strategy.scope()`: the optimizer and the metrics make their variables here,
    and under a strategy they must be distributed like the model's.

    Losses, metrics and their structures go through `model.compile`, so every structure that
    `keras.Model.fit` takes is taken here, and means the same.
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
        """Compiles the model and takes ownership of it.

        Args:
          model: The model that is trained. Built or not; it is built from the data set if need be.
          optimizer: As in `compile`. Under the policy `mixed_float16`, Keras wraps it in a
            `LossScaleOptimizer`; `state.optimizer` is what it made. None: keep the optimizer of a
            model that is compiled already, or Keras's default.
          loss: As in `compile`; None for a model whose losses all come from `add_loss`, or for a
            train step that computes its own.
          metrics: As in `compile`: not weighted by the sample weights.
          weighted_metrics: As in `compile`: weighted by the sample weights.
          loss_weights: As in `compile`: one factor an output.
          extras: Whatever else a custom step reads or writes, by name: models, optimizers, metrics,
            variables. They are saved with the rest. Optimizers among them must be built.

        Raises:
          ValueError: If the model was made in another scope, or an optimizer in `extras` is not
            built, or a name in `extras` is taken.
        """
        self.strategy = tf.distribute.get_strategy()
        self.has_scope = tf.distribute.has_strategy()
        _check_scope(model, self.strategy if self.has_scope else None)
        _check_extras(extras or {})
        self.model = model
        self.progress = Progress()
        self.is_built = False
        self._has_sparse_gradients: bool | None = None  # known once a step is traced
        self.functions: dict[Any, Any] = {}  # compiled functions over this state; the loop's cache
        self.extras = dict(extras or {})
        model.compile(
            optimizer=optimizer or getattr(model, "optimizer", None) or "rmsprop",
            loss=loss,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            loss_weights=loss_weights,
        )
        self.optimizer = model.optimizer
        # Not the first of `model.metrics`, which a model may override.
        self._loss_tracker = model._loss_tracker
        self._call_takes_training = "training" in inspect.signature(model.call).parameters
        self._loss_takes_training = "training" in inspect.signature(model.compute_loss).parameters

    def build(self, element_spec: Any) -> None:
        """Makes every variable that is still missing: layers, optimizer slots, metrics.

        Context: cross-replica. Without it, variables would be born inside the compiled function,
        which `tf.distribute` does not allow.

        Args:
          element_spec: Structure of `tf.TensorSpec`, `dataset.element_spec`.
        """
        self.is_built = True
        with self.strategy.scope():
            # Keras's fit does the same under a strategy; no public name does it for metrics.
            self.model._symbolic_build(
                data_batch=tf.nest.map_structure(_spec_or_none, element_spec)
            )

    def call_model(self, x: Any, *, training: bool) -> Any:
        """Returns the model's outputs for one batch, called as fit calls it.

        Context: replica. A model whose own `call` has no argument `training` is not told, and nor
        are its layers: fit leaves their dropout off.
        """
        kwargs = {"training": training} if self._call_takes_training else {}
        return self.model(x, **kwargs)

    def compute_loss(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None, *, training: bool = True
    ) -> tf.Tensor:
        """Returns the loss of one batch, with regularisers and `add_loss`.

        Context: replica. Keras divides mean-type losses by the number of replicas, so that the sum
        over replicas, which the optimizer takes, is the mean over the global batch. Do not divide
        again.

        Returns:
          Scalar, in the loss's dtype (float32 by default).
        """
        kwargs = {"training": training} if self._loss_takes_training else {}
        return self.model.compute_loss(
            x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, **kwargs
        )

    def scale_loss(
        self, loss: tf.Tensor, *, optimizer: keras.optimizers.Optimizer | None = None
    ) -> tf.Tensor:
        """Multiplies the loss by the loss scale; `apply_gradients` divides by it again.

        Context: replica. The scale is 1 but for `mixed_float16`.
        """
        return (optimizer or self.optimizer).scale_loss(loss)

    def apply_gradients(
        self,
        gradients: Iterable[tf.Tensor | tf.IndexedSlices | None],
        variables: Iterable[keras.Variable] | None = None,
        *,
        optimizer: keras.optimizers.Optimizer | None = None,
    ) -> None:
        """Unscales, clips, reduces over the replicas and updates the variables.

        Context: replica. Pass the gradients of this replica as they come from the tape.

        Args:
          gradients: One a variable; None where the loss does not depend on it.
          variables: Default: the model's trainable variables.
          optimizer: Default: `state.optimizer`.
        """
        gradients = list(gradients)
        # Once sparse, always sparse: a step may update several times, each with its own optimizer.
        is_sparse = any(isinstance(gradient, tf.IndexedSlices) for gradient in gradients)
        self._has_sparse_gradients = bool(self._has_sparse_gradients) or is_sparse
        gradients_lib.apply_gradients(
            optimizer or self.optimizer,
            gradients,
            list(self.model.trainable_variables if variables is None else variables),
        )

    def update_metrics(
        self, loss: tf.Tensor, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> Logs:
        """Adds one batch to the loss tracker and to the compiled metrics.

        Context: replica.

        Args:
          loss: What `compute_loss` returned.
          x: Inputs; the size of the first one weighs the loss, as in Keras.
          y: Targets.
          y_pred: What the model returned.
          sample_weight: Weights, for `weighted_metrics` alone.

        Returns:
          Metric name to scalar. The loop takes the names alone and computes the results at log
          boundaries, so that the graph prunes the computation here.
        """
        if self._loss_tracker is not None:
            num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
            if num_replicas > 1:
                loss = loss * tf.cast(num_replicas, loss.dtype)
            first_input = next(i for i in tf.nest.flatten(x) if i is not None)
            self._loss_tracker.update_state(loss, sample_weight=tf.shape(first_input)[0])
        logs: Logs = self.model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
        return logs

    @property
    def may_loop(self) -> bool:
        """Whether an execution may be longer than a step; under replicas, not before one is traced.

        Replicas gather the rows of sparse gradients, whose number changes from batch to batch: in a
        loop, TensorFlow takes that for a fault of the collective and aborts.
        """
        return self.strategy.num_replicas_in_sync == 1 or self._has_sparse_gradients is False

    def reset_metrics(self) -> None:
        """Resets the model's metrics and those among the extras. Context: cross-replica."""
        self.model.reset_metrics()
        for metric in self._extra_metrics():
            metric.reset_state()

    def metrics_result(self) -> Logs:
        """Returns each metric's name and result, aggregated over the replicas.

        Context: cross-replica.
        """
        results: Logs = self.model.get_metrics_result()
        return results | {metric.name: metric.result() for metric in self._extra_metrics()}

    def _extra_metrics(self) -> list[keras.metrics.Metric]:
        return [e for e in self.extras.values() if isinstance(e, keras.metrics.Metric)]

    @property
    def optimizers(self) -> list[keras.optimizers.Optimizer]:
        """The optimizer and those among the extras."""
        extras = [e for e in self.extras.values() if isinstance(e, keras.optimizers.Optimizer)]
        return [self.optimizer, *extras]

    def named_variables(self) -> list[tuple[str, keras.Variable]]:
        """Returns every variable that a run must save, each once, with a unique and stable name.

        The names are `model/<path>`, `optimizer/<path>`, `<extra>/<path>`, `metrics/<path>`, with
        `#2`, `#3` where Keras gives the same path twice. The states of seed generators (dropout)
        are among them.
        """
        owners = {"model": self.model, "optimizer": self.optimizer, **self.extras}
        owners |= {"metrics": self.model.metrics_variables}
        seen: set[int] = set()
        counts: dict[str, int] = {}
        result = []
        for owner, thing in owners.items():
            for variable in _variables_of(thing):
                if id(variable) in seen:
                    continue
                seen.add(id(variable))
                name = f"{owner}/{variable.path}"
                counts[name] = counts.get(name, 0) + 1
                result.append((name if counts[name] == 1 else f"{name}#{counts[name]}", variable))
        return result

    def weights_sha256(self) -> str:
        """Returns a digest of all model variables in order: path, dtype, shape, bytes."""
        digest = hashlib.sha256()
        for variable in self.model.variables:
            array = variable.numpy()
            digest.update(f"{variable.path} {variable.dtype} {tuple(array.shape)}\n".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()


def _check_scope(model: keras.Model, strategy: tf.distribute.Strategy | None) -> None:
    if model._distribute_strategy is not strategy:
        raise ValueError(
            "The model and its TrainState must be made in the same strategy.scope(): the "
            "variables of the one could not be used with those of the other."
        )


def _check_extras(extras: Mapping[str, Any]) -> None:
    for name, extra in extras.items():
        if name in ("model", "optimizer", "metrics"):
            raise ValueError(f"extras[{name!r}]: the name is taken by state.{name}; take another.")
        if not isinstance(extra, _KINDS_OF_EXTRAS):
            kinds = ", ".join(f"keras.{kind.__name__}" for kind in _KINDS_OF_EXTRAS)
            raise ValueError(
                f"extras[{name!r}] is a {type(extra).__name__}, which cannot be saved: "
                f"pass one of {kinds}."
            )
        if isinstance(extra, keras.optimizers.Optimizer) and not extra.built:
            raise ValueError(
                f"extras[{name!r}] is an optimizer that is not built: call "
                f"{name}.build(model.trainable_variables) inside strategy.scope() first."
            )


def _spec_or_none(spec: Any) -> Any:
    # Keras puts an empty Optional where a batch has None, which a data set cannot hold.
    return None if isinstance(spec, tf.OptionalSpec) else spec


def _variables_of(thing: Any) -> list[keras.Variable]:
    if isinstance(thing, keras.Variable):
        return [thing]
    if isinstance(thing, keras.random.SeedGenerator):
        return [thing.state]
    return list(thing if isinstance(thing, list) else thing.variables)
