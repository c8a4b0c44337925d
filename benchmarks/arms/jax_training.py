"""The common part of the JAX arms: data on the device, and a step with loss, metrics, optimizer."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.arms import jax_models
from benchmarks.race import weights as weights_lib
from benchmarks.race.workloads import WEIGHT_DECAY, Task, Workload

_RHO, _BETA_1, _BETA_2, _EPSILON = 0.9, 0.9, 0.999, 1e-7

NUM_PROBE_STEPS = 4
_SETTINGS: dict[str, Any] = {
    "data": "bytes on the device, gathered by index in the step",
    "rmsprop": "optax.rmsprop(eps_in_sqrt=True), which is Keras's formula",
    "adam": "Keras's formula by hand: optax adds epsilon after the bias correction",
    "adamw": "the same, after Keras's decay of all weights",
    "random": "unsafe_rbg",
}


class Examples(NamedTuple):
    """All examples on the device, and their order in an epoch."""

    x: jax.Array
    y: jax.Array
    order: jax.Array


class State(NamedTuple):
    """What a step changes.

    Attributes:
      weights: In Keras's order.
      slots: Of the optimizer.
      num_steps: Steps so far.
      loss: Sum since the last reset.
      num_right: Correct predictions since the last reset.
    """

    weights: list[jax.Array]
    slots: Any
    num_steps: jax.Array
    loss: jax.Array
    num_right: jax.Array

    def reset(self) -> State:
        """Returns the state with its metrics at zero."""
        return self._replace(loss=jnp.zeros(()), num_right=jnp.zeros((), jnp.int32))


Step = Callable[[State, Examples], State]


def settings(found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of all JAX arms, and what one found, for the record."""
    return _SETTINGS | found


def find_settings(
    task: Task, make_train: Callable[[Task, str], Callable[[State, Examples], State]]
) -> dict[str, Any]:
    """Returns by which of its two ways a convolution is faster here, from a few steps of each.

    Args:
      task: What is trained; in another net than the convolutional one, there is nothing to find.
      make_train: Returns a function, not compiled, that trains an epoch of a task or a step of it,
        by one of `jax_models.CONVOLUTIONS`.
    """
    if task.workload.model != "cnn":
        return {}
    size = task.workload.global_batch_size
    num_steps = min(NUM_PROBE_STEPS, task.workload.steps_per_epoch)
    workload = dataclasses.replace(task.workload, num_examples=num_steps * size)
    probed = dataclasses.replace(task, workload=workload)
    examples, secs = load_examples(task), {}
    for convolution in jax_models.CONVOLUTIONS:
        train = jax.jit(make_train(probed, convolution))
        jax.block_until_ready(train(make_state(task), examples))  # compiles
        started_at = time.perf_counter()
        jax.block_until_ready(train(make_state(task), examples))
        secs[convolution] = time.perf_counter() - started_at
    return {"convolution": min(secs, key=lambda name: secs[name]), "convolution_secs": secs}


def load_examples(task: Task) -> Examples:
    """Returns the task's examples on the device."""
    arrays = (np.load(task.directory / f"{name}.npy") for name in ("x_train", "y_train", "order"))
    x, y, order = arrays
    order = order.reshape(-1, task.workload.global_batch_size)
    return Examples(jnp.asarray(x), jnp.asarray(y, jnp.int32), jnp.asarray(order, jnp.int32))


def make_state(task: Task) -> State:
    """Returns the state before the first step."""
    initial = weights_lib.load(task.directory / "initial.npz")
    weights = [jnp.asarray(weight) for weight in initial]
    slots = make_optimizer(task.workload).init(weights)
    zero = jnp.zeros((), jnp.int32)
    return State(weights, slots, zero, jnp.zeros(()), jnp.copy(zero))


def make_step(task: Task, convolution: str | None = None) -> Step:
    """Returns a function that trains on the next batch, not compiled.

    Args:
      task: What is trained.
      convolution: See `jax_models.make_forward`.

    Raises:
      NotImplementedError: If these arms do not support the model, precision or device.
    """
    workload, forward = task.workload, jax_models.make_forward(task, convolution)
    optimizer = make_optimizer(workload)
    # The default random generator takes longer than the dropout itself.
    key = jax.random.key(task.seed, impl="unsafe_rbg")

    def compute_loss(
        weights: list[jax.Array], x: jax.Array, labels: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        logits = forward(weights, x, key)
        return mean_loss(workload, logits, labels), (logits.argmax(1) == labels).sum()

    def step(state: State, examples: Examples) -> State:
        rows = examples.order[state.num_steps % workload.steps_per_epoch]
        x, labels = examples.x[rows], examples.y[rows]
        if x.dtype == jnp.uint8:
            x = x.astype(jnp.float32) / 255
        step_key = jax.random.fold_in(key, state.num_steps)
        compute_gradients = jax.value_and_grad(compute_loss, has_aux=True)
        (loss, num_right), gradients = compute_gradients(state.weights, x, labels, step_key)
        updates, slots = optimizer.update(gradients, state.slots, state.weights)
        return State(
            weights=optax.apply_updates(state.weights, updates),
            slots=slots,
            num_steps=state.num_steps + 1,
            loss=state.loss + loss,
            num_right=state.num_right + num_right,
        )

    return step


def mean_loss(workload: Workload, logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the loss of a batch."""
    if workload.loss == "categorical_crossentropy":
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    # Of the logits; see `Workload.loss`.
    targets = jax.nn.one_hot(labels, workload.num_classes)
    return optax.sigmoid_binary_cross_entropy(logits, targets).mean()


def make_optimizer(workload: Workload) -> optax.GradientTransformation:
    """Returns the workload's optimizer with Keras's formula."""
    rate = workload.learning_rate
    if workload.optimizer == "rmsprop":
        return optax.rmsprop(rate, decay=_RHO, eps=_EPSILON, eps_in_sqrt=True)
    adam = optax.chain(_scale_by_keras_adam(), optax.scale(-rate))
    if workload.optimizer == "adam":
        return adam
    # Updates that are not scaled by the rate of Adam: the weights decay by it once.
    return optax.chain(adam, optax.add_decayed_weights(-rate * WEIGHT_DECAY))


class AdamSlots(NamedTuple):
    """Adam's number of updates, and the means of gradients and of their squares."""

    num_updates: jax.Array
    means: Sequence[jax.Array]
    mean_squares: Sequence[jax.Array]


def _scale_by_keras_adam() -> optax.GradientTransformation:
    def init(weights: optax.Params) -> AdamSlots:
        zeros = jax.tree.map(jnp.zeros_like, weights)
        return AdamSlots(jnp.zeros(()), zeros, jax.tree.map(jnp.copy, zeros))

    def update(
        gradients: optax.Updates, slots: AdamSlots, weights: optax.Params | None = None
    ) -> tuple[optax.Updates, AdamSlots]:
        means = optax.tree.update_moment(gradients, slots.means, _BETA_1, 1)
        squares = optax.tree.update_moment(gradients, slots.mean_squares, _BETA_2, 2)
        num = slots.num_updates + 1
        scale = jnp.sqrt(1 - _BETA_2**num) / (1 - _BETA_1**num)
        updates = jax.tree.map(
            lambda mean, square: scale * mean / (jnp.sqrt(square) + _EPSILON), means, squares
        )
        return updates, AdamSlots(num, means, squares)

    return optax.GradientTransformation(init, update)
