"""Recipe: how to build a model and what to train it with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to build a model and what to train it with.

    The functions create variables; call them inside `strategy.scope()`.

    Attributes:
      build: `build(input_shape=..., num_classes=..., **hparams)` returns a new model.
      make_loss: Returns the loss, for one-hot labels `[batch, num_classes]`.
      make_optimizer: Called with a learning rate, or None for that of the recipe; returns the
        optimizer.
      make_metrics: Returns the metrics, among them one named `accuracy`.
      epochs: Epochs that reach the accuracy given in the docstring of the model's module.
      global_batch_size: Examples in a batch, over all replicas.

    Example:
      >>> from gradloop.models import registry
      >>> recipe = registry.get("dense")
      >>> state = engine.TrainState(
      ...     recipe.build((28, 28, 1), num_classes=10),
      ...     recipe.make_optimizer(None),
      ...     loss=recipe.make_loss(),
      ...     metrics=recipe.make_metrics(),
      ... )
      >>> recipe.epochs, recipe.global_batch_size
      (5, 128)
    """

    build: Callable[..., keras.Model]
    make_loss: Callable[[], keras.losses.Loss]
    make_optimizer: Callable[[float | None], keras.optimizers.Optimizer]
    make_metrics: Callable[[], list[keras.metrics.Metric]]
    epochs: int
    global_batch_size: int

    @property
    def defaults(self) -> dict[str, Any]:
        """The fields of a training config that the recipe sets, by name."""
        return {"epochs": self.epochs, "global_batch_size": self.global_batch_size}


def optimizer_factory(
    optimizer: Callable[..., keras.optimizers.Optimizer],
    *,
    learning_rate: float = 1e-3,
    halving_steps: int | None = None,
) -> Callable[[float | None], keras.optimizers.Optimizer]:
    """Returns a function for `Recipe.make_optimizer`.

    Args:
      optimizer: A class of optimizers of Keras.
      learning_rate: Used if the function is called with None; 1e-3 is Keras's default.
      halving_steps: Steps in which the learning rate decays to half of its value, also one that
        the caller passes. None: no decay.

    Example:
      >>> from gradloop.models import recipe
      >>> make_optimizer = recipe.optimizer_factory(keras.optimizers.SGD, learning_rate=0.25)
      >>> float(make_optimizer(None).learning_rate), float(make_optimizer(0.5).learning_rate)
      (0.25, 0.5)
    """

    def make_optimizer(chosen: float | None) -> keras.optimizers.Optimizer:
        initial = learning_rate if chosen is None else chosen
        if halving_steps is None:
            return optimizer(learning_rate=initial)
        return optimizer(
            learning_rate=keras.optimizers.schedules.ExponentialDecay(initial, halving_steps, 0.5)
        )

    return make_optimizer


def categorical_accuracy() -> list[keras.metrics.Metric]:
    """Returns one metric: the share of examples whose most probable class is the right one."""
    # Binary accuracy would go with a binary cross-entropy, but it counts nine easy zeros per
    # example: 99 % for a model that is right in 95 %.
    return [keras.metrics.CategoricalAccuracy(name="accuracy")]
