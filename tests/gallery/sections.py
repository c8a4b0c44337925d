"""Runs sections of docs/custom_steps/ as they stand there."""

import keras
import pytest
import tensorflow as tf

from benchmarks import gallery
from gradloop import engine
from gradloop.data import pipeline
from gradloop.engine.variables import local_values

STEPS_PER_EPOCH = 10  # the last one with a partial batch
STEPS_PER_EXECUTION = 8
# Tracing for two replicas takes seconds; test_gallery.py does it for each step.
REPLICAS = [1, pytest.param(2, marks=pytest.mark.slow)]


def make_dataset(name):
    arrays = gallery.make_arrays(name, num_examples=76)
    return pipeline.make_dataset(*arrays, global_batch_size=8, shuffle=True, seed=1)


def make_strategy(num_replicas):
    if num_replicas == 1:
        return tf.distribute.get_strategy()
    config = engine.TrainConfig(strategy="mirrored", num_replicas=num_replicas)
    return engine.make_strategy(config)


def set_up(name, *, num_replicas=1, precision="float32", seed=0, **replacements):
    """Executes a section without its call of fit; returns the state and all names."""
    names = _define(name, num_replicas, precision, seed, replacements)
    return gallery.set_up(name, names), names


def run(name, *, epochs=2, num_replicas=1, precision="float32"):
    """Executes a section to its end; returns the state, the history and all names."""
    config = engine.TrainConfig(epochs=epochs, steps_per_execution=STEPS_PER_EXECUTION)
    data = {"config": config, "train_ds": make_dataset(name)}
    names = _define(name, num_replicas, precision, 0, data)
    return gallery.set_up(name, names, fits=True), names["history"], names


def _define(name, num_replicas, precision, seed, replacements):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)
    return gallery.define(name, strategy=make_strategy(num_replicas), **replacements)


def run_saving(name, path, **keywords):
    """Trains for two epochs and saves in the middle of the first; returns all as `run` does."""
    state, names = set_up(name, **keywords)

    def save(info):
        # Under replicas, the first execution has one step.
        if STEPS_PER_EXECUTION <= info.progress.num_steps_completed < STEPS_PER_EPOCH:
            engine.save_checkpoint(path, info.state)

    return state, fit(name, state, names, hooks=[engine.LambdaHook(on_save_point=save)]), names


def resume(name, path, **keywords):
    """Makes another state, restores it and trains to the end; returns state and history."""
    state, names = set_up(name, seed=1, **keywords)
    state.build(make_dataset(name).element_spec)
    engine.restore_checkpoint(path, state)
    assert 0 < state.progress.step < STEPS_PER_EPOCH
    return state, fit(name, state, names, resume=True)


def fit(name, state, names, *, steps_per_execution=STEPS_PER_EXECUTION, **keywords):
    config = engine.TrainConfig(epochs=2, steps_per_execution=steps_per_execution)
    dataset, step = make_dataset(name), names["train_step"]
    return engine.fit(state, dataset, config, train_step=step, **keywords)


def one_step(name, x, y=None, *, change=None, **keywords):
    """Performs the step of a section once, on one batch; returns the state and its logs.

    Args:
      name: Of the section.
      x: Array.
      y: Array.
      change: Called with the state before.
      **keywords: Of `set_up`.
    """
    state, names = set_up(name, **keywords)
    if change is not None:
        change(state)
    dataset = pipeline.make_dataset(x, y, global_batch_size=len(x))
    history = engine.fit(state, dataset, engine.TrainConfig(), train_step=names["train_step"])
    return state, {key: values[0] for key, values in history.history.items()}


def values_of(state):
    """Returns the arrays of all named variables, one a replica where these differ."""
    return {name: local_values(variable) for name, variable in state.named_variables()}


def assert_same_bits(values, others):
    assert list(values) == list(others)
    for name, arrays in values.items():
        for array, expected in zip(arrays, others[name], strict=True):
            assert array.tobytes() == expected.tobytes(), name
