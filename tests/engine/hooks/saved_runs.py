"""Runs of 10 steps an epoch that are saved."""

import keras
import numpy as np
import tensorflow as tf

from gradloop import engine
from gradloop.engine.storage.checkpoint_folder import CheckpointFolder

SPEC = (tf.TensorSpec((None, 2)), tf.TensorSpec((None, 1)))


def make_state(optimizer=None, **arguments):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    return engine.TrainState(
        model, optimizer or keras.optimizers.Adam(0.1), loss="mse", **arguments
    )


def train(state, hooks, *, epochs=3, **arguments):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 2)).astype("float32"), rng.normal(size=(80, 1)).astype("float32")
    config = engine.TrainConfig(epochs=epochs, global_batch_size=8, steps_per_execution=4)
    return engine.fit(state, x, config, y=y, shuffle=False, hooks=hooks, **arguments)


def resume(directory, hooks, *, optimizer=None, **arguments):
    """Goes on in a state of its own, as a new process does."""
    state = make_state(optimizer)
    state.build(SPEC)
    engine.restore_checkpoint(directory, state)
    train(state, hooks, resume=True, **arguments)
    return state


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def recorded_writes(monkeypatch):
    """Returns a list that gets the steps and epochs of each file, and the name of some."""
    written = []
    write = CheckpointFolder.write

    def record(self, snapshot, name=None):
        progress = snapshot.progress
        position = (progress.num_steps_completed, progress.num_epochs_completed)
        written.append(position if name is None else (*position, name))
        return write(self, snapshot, name)

    monkeypatch.setattr(CheckpointFolder, "write", record)
    return written


class Request(engine.Hook):
    """Does something once, at the end of the execution that reaches a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def max_steps(self, num_steps_completed):
        return max(self.step - num_steps_completed, 1)

    def on_execution_end(self, info):
        if info.progress.num_steps_completed == self.step:
            self.action(info)
