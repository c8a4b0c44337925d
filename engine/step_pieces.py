"""The pieces of a step: what a train step calls on its state, in replica context.

In the way of a batch: `step` puts the pieces together, and `gradients` does what `apply_gradients`
says. All arithmetic is Keras's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras.src.losses import loss as keras_loss

from . import gradient_analysis
from . import gradients as gradients_lib
from .arguments import has_own
from .protocols import Logs
from .replicas.uneven import zero_if_empty
from .step_errors import loss_in_words
from .step_logs import flatten_logs, last
from .step_variables import StepVariables
from .trace_notes import TraceNotes


class StepPieces:
    """What `TrainState` offers to steps. Context of all methods: replica.

    Attributes:
      model: The model.
      optimizer: The optimizer; None for steps that bring their own.
      step_variables: Seeds and sums of gradients.
      notes: What the step has done since its trace began.
      watched_gradients: Whose norms are logged: "total", "layers" too, or None.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer | None
    step_variables: StepVariables
    notes: TraceNotes
    watched_gradients: str | None = None
    loss_tracker: keras.metrics.Metric | None
    _has_sparse_gradients: bool | None
    _call_takes_training: bool
    _loss_takes_training: bool

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
        with loss_in_words(self.model, y, y_pred):
            return self.model.compute_loss(x, y, y_pred, sample_weight, **kwargs)

    def scale_loss(
        self, loss: tf.Tensor, *, optimizer: keras.optimizers.Optimizer | None = None
    ) -> tf.Tensor:
        """Multiplies the loss by the loss scale; `apply_gradients` divides by it again.

        Context: replica. The scale is 1 except under `mixed_float16`.
        """
        optimizer = optimizer or self.optimizer
        self.notes.scaled.add(id(optimizer))
        self.notes.replica.add_loss(loss)
        return loss if optimizer is None else optimizer.scale_loss(loss)

    def apply_gradients(
        self,
        gradients: Iterable[tf.Tensor | tf.IndexedSlices | None],
        variables: Iterable[keras.Variable] | None = None,
        *,
        optimizer: keras.optimizers.Optimizer | None = None,
        when: tf.Tensor | bool | None = None,
    ) -> None:
        """Unscales the gradients, sums them over the replicas, clips, and updates the variables.

        Context: replica. Pass the gradients of this replica as they come from the tape.

        Args:
          gradients: One a variable; None where the loss does not depend on it.
          variables: Default: the trainable variables of the model.
          optimizer: Default: `state.optimizer`.
          when: Boolean scalar: whether to update at all. Replicas update where it is true on all of
            them; elsewhere nothing changes, neither slots nor iterations.

        Raises:
          ValueError: If no variable has a gradient, or the state has no such optimizer.
        """
        if self.notes.replica.delay_update(gradients, variables, optimizer, when):
            return
        gradients = zero_if_empty(list(gradients), self.notes.replica.share)
        self.notes.replica.end_share()
        optimizer = optimizer or self.optimizer
        if optimizer is None:
            raise ValueError(
                "The state has no optimizer: pass one to TrainState(model, optimizer), or compile "
                "the model."
            )
        variables = list(self.model.trainable_variables if variables is None else variables)
        self.notes.has_applied = True
        if self.watched_gradients is not None and variables:
            self._log_norms(optimizer, gradients, variables)
        self.notes.applied[id(optimizer)] = optimizer
        if self.notes.accumulation_steps > 1 and variables:
            if when is not None:
                raise ValueError(
                    f"gradient_accumulation_steps={self.notes.accumulation_steps} with when=: "
                    "whether to update is decided once a window. Leave out one of the two."
                )
            self._has_sparse_gradients = bool(self._has_sparse_gradients)  # their sums are dense
            self.step_variables.accumulate(self.notes, optimizer, gradients, variables)
            return
        # Once sparse, always sparse: a step may update several times, each with its own optimizer.
        is_sparse = any(isinstance(gradient, tf.IndexedSlices) for gradient in gradients)
        self._has_sparse_gradients = bool(self._has_sparse_gradients) or is_sparse
        when = None if when is None else tf.convert_to_tensor(when)
        guard = self.step_variables.guard(self.notes)
        gradients_lib.apply_gradients(optimizer, gradients, variables, when=when, guard=guard)

    def minimize(
        self,
        loss_fn: Callable[[], Any],
        variables: Iterable[keras.Variable] | None = None,
        *,
        optimizer: keras.optimizers.Optimizer | None = None,
        when: tf.Tensor | bool | None = None,
    ) -> Any:
        """Makes one update that lowers a loss: tape, loss scale, gradients, `apply_gradients`.

        Context: replica.

        Args:
          loss_fn: Returns the loss, scalar, or a tuple or list whose first entry it is. As for
            `compute_loss`, the sum over the replicas is what is minimized: see `mean`.
          variables: As in `apply_gradients`.
          optimizer: Likewise.
          when: Likewise.

        Returns:
          What `loss_fn` returned.

        Example:
          >>> def train_step(state, batch):
          ...     x, y = batch
          ...     def loss_fn():
          ...         errors = (y - state.model(x)) ** 2
          ...         return state.mean(errors), errors
          ...     _, errors = state.minimize(loss_fn)
          ...     return {"loss": tf.reduce_mean(errors)}
          >>> history = engine.fit(state, train_ds, config, train_step=train_step)
        """
        variables = list(self.model.trainable_variables if variables is None else variables)
        with tf.GradientTape() as tape:
            result = loss_fn()
            loss = result[0] if isinstance(result, tuple | list) else result
            if tf.convert_to_tensor(loss).shape.rank != 0:
                raise ValueError(
                    f"loss_fn returned a loss of shape {loss.shape}: return a scalar, such as "
                    "state.mean(loss)."
                )
            scaled_loss = self.scale_loss(loss, optimizer=optimizer)
        gradients = tape.gradient(scaled_loss, variables)
        if variables and all(gradient is None for gradient in gradients):
            raise ValueError(
                "The loss of loss_fn depends on none of the variables: compute it inside loss_fn, "
                "where the tape sees it, and pass the variables that it depends on."
            )
        self.apply_gradients(gradients, variables, optimizer=optimizer, when=when)
        return result

    def mean(self, values: tf.Tensor) -> tf.Tensor:
        """Returns this replica's share of the mean over the global batch: a loss to minimize.

        Context: replica. It is the mean over all values of the replica, divided by the number of
        replicas and weighed by its share of the examples, as of a Keras loss: the sum over the
        replicas is the mean. It is 0 on a replica that has got no example.

        Args:
          values: Of any shape; the first dimension is the batch.

        Returns:
          Scalar. To log a mean, return `tf.reduce_mean(values)` from the step.
        """
        num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
        mean = tf.reduce_mean(values) / tf.cast(num_replicas, values.dtype)
        share = self.notes.replica.share
        return mean if share is None else share.weigh(mean)

    def seed(self) -> tf.Tensor:
        """Returns a seed for `tf.random.stateless_*`: another one at each call, step and replica.

        Context: replica. A run that is resumed takes the same seeds as one that never stopped.

        Returns:
          int64 of shape `[2]`.

        Example:
          >>> def noisy_step(state, batch):
          ...     x, y = batch
          ...     noise = tf.random.stateless_normal(tf.shape(x), seed=state.seed())
          ...     return engine.train_step(state, (x + noise, y))
          >>> history = engine.fit(state, train_ds, config, train_step=noisy_step)
        """
        return self.step_variables.seed(self.notes)

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
        if self.loss_tracker is not None:
            loss = keras_loss.unscale_loss_for_distribution(loss)  # as it was scaled
            first_input = next(i for i in tf.nest.flatten(x) if i is not None)
            self.loss_tracker.update_state(loss, sample_weight=tf.shape(first_input)[0])
        logs: Logs = self.model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
        return self.logs_as_in_fit(logs) if self.has_own("compute_metrics") else logs

    def has_own(self, method: str) -> bool:
        """Returns whether the model, or its class, has another method of this name than Keras's."""
        return has_own(self.model, method)

    def logs_as_in_fit(self, logs: Logs) -> Logs:
        """Returns what a method of the model logs, to be averaged or not as fit does.

        Context: replica. Keras takes the results of the metrics over the epoch if the names are
        theirs, else the values of the last step.
        """
        self.notes.has_updated_metrics = True
        if set(logs) == self.notes.metric_names:
            return logs
        return {name: last(value) for name, value in flatten_logs(logs).items()}

    def _log_norms(
        self, optimizer: keras.optimizers.Optimizer, gradients: Sequence[Any], variables: Any
    ) -> None:
        per_layer = self.watched_gradients == "layers"
        norms = gradient_analysis.norms(optimizer, gradients, variables, per_layer=per_layer)
        name = self.step_variables.name_of(optimizer) or optimizer.name
        prefix = "" if optimizer is self.optimizer else f"{name}/"
        self.notes.replica.logs |= {prefix + name: norm for name, norm in norms.items()}
