"""The rungs of `benchmarks.ladder`: training loops, each of which does one thing more."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import keras
import numpy as np
import tensorflow as tf

from benchmarks.arms.constant_data import ConstantDataset
from gradloop import engine
from gradloop.data import pipeline
from gradloop.engine.planner import TARGET_EXECUTION_SECS
from gradloop.engine.protocols import Batch, Logs
from gradloop.engine.storage.extras import MissingExtra
from gradloop.engine.storage.tensorboard import TensorBoardWriter
from gradloop.engine.storage.writers import CSVWriter, JSONLinesWriter, MultiWriter, Writer
from gradloop.models.recipe import Recipe

# Performs a number of steps and returns their seconds.
Rung = Callable[[int], float]
# x, y, num_classes
Arrays = tuple[np.ndarray, np.ndarray, int]


class Forward:
    """A step with the model and its loss alone.

    Attributes:
      sum: Sum of all losses; a variable, so that TensorFlow keeps what leads to it.
    """

    def __init__(self) -> None:
        self.sum = tf.Variable(0.0, trainable=False)

    def __call__(self, state: engine.TrainState, batch: Batch) -> Logs:
        """Performs a step. Context: replica."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        y_pred = state.call_model(x, training=True)
        loss = state.compute_loss(x, y, y_pred, sample_weight)
        self.sum.assign_add(tf.cast(loss, tf.float32), read_value=False)
        return {}


class Backward:
    """A step with the model, its loss and the gradients, and without an update.

    TensorFlow's graph optimizer removes what no variable and no output needs, so each gradient is
    assigned to a variable of its own, which takes the tensor over without a copy.

    Args:
      model: Whose gradients are computed.

    Attributes:
      sinks: The variables, in the order of the model's.
    """

    def __init__(self, model: keras.Model) -> None:
        self.sinks = [_make_sink(v.value) for v in model.trainable_variables]

    def __call__(self, state: engine.TrainState, batch: Batch) -> Logs:
        """Performs a step. Context: replica."""
        for sink, gradient in zip(self.sinks, gradients_of(state, batch), strict=True):
            if gradient is not None:
                is_sparse = isinstance(gradient, tf.IndexedSlices)
                sink.assign(gradient.values if is_sparse else gradient, read_value=False)
        return {}


def update(state: engine.TrainState, batch: Batch) -> Logs:
    """Performs a step without metrics: gradients and optimizer. Context: replica."""
    state.apply_gradients(gradients_of(state, batch))
    return {}


def gradients_of(state: engine.TrainState, batch: Batch) -> list[Any]:
    """Returns the gradients of the scaled loss. Context: replica."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    with tf.GradientTape() as tape:
        y_pred = state.call_model(x, training=True)
        loss = state.scale_loss(state.compute_loss(x, y, y_pred, sample_weight))
    gradients: list[Any] = tape.gradient(loss, state.model.trainable_variables)
    return gradients


def _make_sink(variable: tf.Variable) -> tf.Variable:
    # Of any shape, because the number of rows of a sparse gradient varies.
    zeros = tf.zeros(variable.shape, variable.dtype)
    return tf.Variable(zeros, trainable=False, shape=tf.TensorShape(None))


def make_state(recipe: Recipe, arrays: Arrays) -> engine.TrainState:
    """Returns the state of a new model, trained as its recipe says."""
    x, _, num_classes = arrays
    shape = x.shape[1:]
    return engine.TrainState(
        recipe.build((*shape, 1) if len(shape) == 2 else shape, num_classes),
        recipe.make_optimizer(None),
        loss=recipe.make_loss(),
        metrics=recipe.make_metrics(),
    )


def make_rungs(
    recipe: Recipe,
    arrays: Arrays,
    global_batch_size: int,
    folder: Path,
    stack: contextlib.ExitStack,
) -> dict[str, Rung]:
    """Returns the rungs from the bottom up, each with a model of its own.

    Args:
      recipe: Of the model.
      arrays: `x, y, num_classes` to train on.
      global_batch_size: Examples per step.
      folder: For the logs.
      stack: Closes the logs; unwind it before you remove the folder.
    """
    dataset = pipeline.make_dataset(
        arrays[0],
        arrays[1],
        global_batch_size=global_batch_size,
        num_classes=arrays[2],
        shuffle=True,
        drop_remainder=True,  # static shapes, as the constant batch has
    )
    batch = next(iter(dataset))

    def new_state() -> engine.TrainState:
        keras.utils.set_random_seed(0)
        return make_state(recipe, arrays)

    state = new_state()
    return {
        "forward": _loop_rung(Forward(), new_state(), batch),
        "+ backward": _loop_rung(Backward(state.model), state, batch),
        "+ optimizer": _loop_rung(update, new_state(), batch),
        "+ metrics": _loop_rung(engine.train_step, new_state(), batch),
        "+ hooks": _fit_rung(new_state(), ConstantDataset(batch)),
        "+ logging": _fit_rung(
            new_state(), ConstantDataset(batch), _Writers(folder / "constant", stack)
        ),
        "+ real data": _fit_rung(new_state(), dataset, _Writers(folder / "real", stack)),
    }


def _loop_rung(step: Any, state: engine.TrainState, batch: Batch) -> Rung:
    resident = ConstantDataset(batch).resident
    state.build(resident.element_spec)
    function = engine.make_train_function(step, state, state.strategy, engine.TrainConfig())

    def run(num_steps: int) -> float:
        started_at = time.perf_counter()
        with warnings.catch_warnings():
            # The lower rungs leave out the update, and write to sinks that nothing saves.
            warnings.filterwarnings("ignore", "Forward|Backward", UserWarning)
            logs = function(resident, tf.constant(num_steps))
        for value in [function.num_steps_done, *logs.values()]:
            np.asarray(value)  # waits for the device
        return time.perf_counter() - started_at

    return run


def _fit_rung(state: engine.TrainState, dataset: Any, writer: Writer | None = None) -> Rung:
    secs_per_step = TARGET_EXECUTION_SECS

    def run(num_steps: int) -> float:
        nonlocal secs_per_step
        # The length that the engine would find by itself, without the steps that finding it takes.
        size = max(1, min(num_steps, int(TARGET_EXECUTION_SECS / secs_per_step)))
        config = engine.TrainConfig(
            steps_per_epoch=min(num_steps, int(dataset.cardinality())),
            epochs=-(-num_steps // int(dataset.cardinality())),
            steps_per_execution=size,
        )
        with open(os.devnull, "w", encoding="utf-8") as stream:
            history = engine.fit(state, dataset, config, hooks=_make_hooks(stream, writer))
        secs_per_step = history.train_secs / history.num_steps
        return secs_per_step * num_steps

    return run


class _Writers(MultiWriter):
    """The writers of train.py, which stay open from one call of `fit` to the next.

    A training opens TensorBoard's file once, and that takes as long as hundreds of small steps.

    Args:
      folder: Is created.
      stack: Closes the files.
    """

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        folder.mkdir(parents=True)
        writers = [CSVWriter(folder / "metrics.csv"), JSONLinesWriter(folder / "metrics.jsonl")]
        with contextlib.suppress(MissingExtra):
            writers.append(TensorBoardWriter(folder / "tensorboard"))
        super().__init__(*writers)
        stack.callback(super().close)

    def close(self) -> None:
        """Flushes the files and leaves them open: the hook closes its writer after each `fit`."""
        self.flush()


def _make_hooks(stream: TextIO, writer: Writer | None) -> list[engine.Hook]:
    hooks = [engine.StopOnSignal(), engine.StopOnNaN(), engine.ProgressBar(stream=stream)]
    return hooks if writer is None else [*hooks, engine.WriteMetrics(writer)]
