"""One training at one count, in a process of its own: `python -m ...training TASK`, as JSON."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from gradloop import engine
from gradloop.data import pipeline
from gradloop.data.sets import synthetic
from gradloop.models import registry
from gradloop.usage import did_you_mean

_SHAPE, _NUM_CLASSES = (28, 28), 10
# A model, compiled, and a dataset of global batches, which both are made in the scope.
Parts = tuple[keras.Model, tf.data.Dataset]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What a process trains.

    Attributes:
      model: Name of a model of gradloop, or `package.module:function` of a function that returns
        a compiled model and a dataset of global batches in a fixed order.
      num_steps: Of the training.
      global_batch_size: Of gradloop's models; the last batch is a little more than half.
      num_replicas: Of `strategy="mirrored"`; None: the workers of `TF_CONFIG`.
      reverses: The examples of each batch come in the other order.
      path: Where the chief writes the weights and, as `.json`, loss and metrics.
    """

    model: str
    num_steps: int
    global_batch_size: int
    num_replicas: int | None
    reverses: bool
    path: str


def check_model(name: str) -> None:
    """Raises ValueError if there is no such model."""
    if ":" in name:
        _import(name)
    elif name not in registry.names():
        raise ValueError(
            f"--model {name}: one of {', '.join(registry.names())}, or package.module:function."
            f"{did_you_mean(name, registry.names())}"
        )


def train(task: Task) -> None:
    """Trains, and writes what came out; see `Task`."""
    config = engine.TrainConfig(
        strategy="mirrored" if task.num_replicas else "multi_worker",
        num_replicas=task.num_replicas, deterministic=True, seed=0, steps_per_execution=4,
        steps_per_epoch=task.num_steps,
    )  # fmt: skip
    engine.configure_runtime(config)
    strategy = engine.make_strategy(config)
    with strategy.scope():
        model, dataset = _make(task)
        _check_layers(model)
        state = engine.TrainState(model)
    if task.reverses:
        dataset = dataset.map(lambda *batch: tf.nest.map_structure(_reverse, batch))
    history = engine.fit(state, dataset, config)
    _write(task, state, {name: values[-1] for name, values in history.history.items()})


def _make(task: Task) -> Parts:
    if ":" in task.model:
        made: Parts = _import(task.model)()
        return made
    recipe = registry.get(task.model)
    model = recipe.build((*_SHAPE, 1), num_classes=_NUM_CLASSES)
    model.compile(recipe.make_optimizer(None), recipe.make_loss(), metrics=recipe.make_metrics())
    num_left = task.global_batch_size // 2 + 1  # seldom a multiple of the replicas
    num_examples = (task.num_steps - 1) * task.global_batch_size + num_left
    (x, y), _ = synthetic.load_data(_SHAPE, _NUM_CLASSES, num_train=num_examples, num_test=1)
    dataset = pipeline.make_dataset(
        x, y, global_batch_size=task.global_batch_size, num_classes=_NUM_CLASSES
    )
    return model, dataset


def _import(name: str) -> Callable[[], Parts]:
    module, _, function = name.partition(":")
    try:
        found: Callable[[], Parts] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--model {name}: {error}") from error
    return found


def _check_layers(model: keras.Model) -> None:
    """Turns dropout off, and refuses layers that must differ by the number of replicas."""
    for layer in model._flatten_layers():
        if getattr(layer, "rate", 0) and hasattr(layer, "seed_generator"):
            layer.rate = 0.0  # each replica draws masks of its own size
        is_local = isinstance(layer, keras.layers.BatchNormalization) and not layer.synchronized
        if is_local and layer.trainable:
            raise ValueError(
                f"layer {layer.name!r} normalizes by the examples of its replica, which are others "
                "at each count: set synchronized=True."
            )


def _reverse(tensor: tf.Tensor) -> tf.Tensor:
    return tf.reverse(tensor, axis=[0])


def _write(task: Task, state: engine.TrainState, logs: dict[str, float]) -> None:
    weights = {v.path: np.asarray(v.numpy()) for v in state.model.weights}
    resolver = state.strategy.cluster_resolver
    if resolver is None or resolver.task_id == 0:
        np.savez(task.path, **weights)
        Path(task.path).with_suffix(".json").write_text(json.dumps(logs), "utf-8")


if __name__ == "__main__":
    try:
        train(Task(**json.loads(sys.argv[1])))
    except ValueError as error:
        sys.exit(f"error: {error}")
