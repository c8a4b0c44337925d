"""Recipe: a model and what it is best trained with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is built and trained.

    Everything that holds variables is a factory, so that the caller decides where they are born:
    inside `strategy.scope()`.

    Attributes:
      build: `build(input_shape=..., num_classes=..., **hparams)` returns a new model.
      make_loss: Returns the loss, for one-hot labels `[batch, num_classes]`.
      make_optimizer: Takes a learning rate, or None for the recipe's own; returns the optimizer.
      make_metrics: Returns the metrics; the accuracy that people compare is named `accuracy`.
      epochs: Epochs that reach the accuracy that the model's file names.
      global_batch_size: Examples a step over all replicas together.
    """

    build: Callable[..., keras.Model]
    make_loss: Callable[[], keras.losses.Loss]
    make_optimizer: Callable[[float | None], keras.optimizers.Optimizer]
    make_metrics: Callable[[], list[keras.metrics.Metric]]
    epochs: int
    global_batch_size: int

    @property
    def defaults(self) -> dict[str, Any]:
        """The fields of a training config that the recipe sets, by the config's names."""
        return {"epochs": self.epochs, "global_batch_size": self.global_batch_size}


def optimizer_factory(
    optimizer: Callable[..., keras.optimizers.Optimizer],
    *,
    learning_rate: float = 1e-3,
    halving_steps: int | None = None,
) -> Callable[[float | None], keras.optimizers.Optimizer]:
    """Returns what a recipe's `make_optimizer` is.

    Args:
      optimizer: A class of Keras's.
      learning_rate: The recipe's own, for a caller that passes None; 1e-3 is Keras's default.
      halving_steps: Steps in which the learning rate, the caller's too, falls to its half; None: it
        stays.
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
    """Returns the share of examples whose most probable class is the right one.

    Binary accuracy, the obvious companion of a binary cross-entropy, would count nine easy zeros an
    example and say 99 % for a model that is right in 95 %.
    """
    return [keras.metrics.CategoricalAccuracy(name="accuracy")]
