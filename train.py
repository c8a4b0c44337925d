"""Trains, evaluates, predicts or compares: flags -> config -> build -> one call -> exit code."""
# ruff: noqa: E402 - what hides TensorFlow's words must stand before its import

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def without_cpp_log() -> Iterator[None]:
    """Takes TensorFlow's C++ log off stderr; what else is written there is shown at the end."""
    # Its errors are about the GPU that is not there, unless there is one.
    levels = "IW" if Path("/dev/nvidiactl").exists() else "IWE"
    sys.stderr.flush()
    with tempfile.TemporaryFile() as written, os.fdopen(os.dup(2), "wb") as stderr:
        os.dup2(written.fileno(), 2)
        try:
            yield
        except BaseException:
            levels = ""
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr.fileno(), 2)
            written.seek(0)
            log_line = rf"(WARNING: All log messages before absl|[{levels}]\d{{4}} [\d:.]+ ).*\n"
            text = written.read()
            stderr.write(re.sub(f"(?m)^{log_line}".encode(), b"", text) if levels else text)


# Quiets the C++ side from now on; of what it says while it is loaded, it hides nothing.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with without_cpp_log():
    import tensorflow as tf

    tf.config.list_physical_devices()

import data
import engine
from data import pipeline
from engine import report
from engine.files import json_text
from engine.flags import make_config, read_choices
from engine.hooks import DIVERGENCE, INTERRUPTED
from engine.run import Log, RunFolder
from engine.state import Progress
from models import registry
from models.recipe import Recipe

DESCRIPTION = "Trains a model on a data set and gives the numbers of keras.Model.fit."
EXIT_USAGE = 2
# By the first word of the exit reason; all other reasons are as good as having gone to the end.
EXIT_CODES = {DIVERGENCE: 1, report.FAILED: 1, INTERRUPTED: 130}


@dataclasses.dataclass
class Run:
    """The parts that the config names, and the state that is made of them."""

    config: engine.TrainConfig
    recipe: Recipe
    arrays: data.DatasetArrays
    strategy: tf.distribute.Strategy
    state: engine.TrainState | None = None
    restored: Path | None = None

    def make_dataset(self, *, training: bool = False) -> pipeline.EpochDataset:
        """Returns the training set, in another order each epoch, or the test set as it is."""
        x, y = self.arrays[:2] if training else self.arrays[2:4]
        return pipeline.make_dataset(
            x,
            y,
            global_batch_size=self.config.global_batch_size,
            num_classes=self.arrays.num_classes,
            rescale=self.config.rescale,
            shuffle=training,
            seed=self.config.seed or 0,
        )

    def make_state(self) -> engine.TrainState:
        """Returns the model with its recipe. Context: inside the strategy's scope."""
        shape = self.arrays.x_train.shape[1:]
        return engine.TrainState(
            self.recipe.build((*shape, 1) if len(shape) == 2 else shape, self.arrays.num_classes),
            self.recipe.make_optimizer(self.config.learning_rate),
            loss=self.recipe.make_loss(),
            metrics=self.recipe.make_metrics(),
        )

    def start(self) -> engine.TrainState:
        """Makes the state, and restores it if the config says so.

        Raises:
          CheckpointError: If it cannot be restored.
          ConfigError: If nothing is left to train.
        """
        config = self.config
        with self.strategy.scope():
            state = self.make_state()
        state.build(self.make_dataset().element_spec)
        if config.resume:
            self.restored = engine.restore(RunFolder(Path(config.run_dir or "")).checkpoints, state)
        elif config.checkpoint is not None:
            self.restored = engine.restore(config.checkpoint, state)
            state.progress = Progress()
        num_done = state.progress.num_epochs_completed
        if config.mode == "train" and num_done >= config.epochs:
            raise engine.ConfigError(
                f"epochs={config.epochs}, but {num_done} are done: to go on, ask for more than that."
            )
        return state

    def limited(self) -> engine.TrainConfig:
        """Returns the config with no more steps than there are: a limit above means all."""
        limits = {
            "steps_per_epoch": self.make_dataset(training=True).num_batches,
            "validation_steps": self.make_dataset().num_batches,
        }
        asked = {name: getattr(self.config, name) for name in limits}
        return dataclasses.replace(
            self.config, **{name: min(asked[name] or limits[name], limits[name]) for name in limits}
        )
