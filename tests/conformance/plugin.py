"""A pytest plugin that lets Keras's own tests train with the engine.

    make conformance

`fit`, `evaluate` and `predict` of keras.Model go through the engine while a test runs. An argument
that the engine cannot express is an error: nothing is emulated here.
"""

import contextlib
import importlib.util
import sys
import types

import keras
import pytest
from keras.src.backend.tensorflow.trainer import TensorFlowTrainer

from gradloop import engine

# Some files of tests import JAX, for tests that other backends run.
if importlib.util.find_spec("jax") is None:
    sys.modules["jax"] = types.ModuleType("jax")


def fit(
    model, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None,
    validation_split=0.0, validation_data=None, shuffle=True, class_weight=None,
    sample_weight=None, initial_epoch=0, steps_per_epoch=None, validation_steps=None,
    validation_batch_size=None, validation_freq=1,
):  # fmt: skip
    if validation_batch_size not in (None, batch_size):
        raise NotImplementedError("validation_batch_size")
    model._assert_compile_called("fit")
    callbacks, history = as_list(callbacks)
    config = engine.TrainConfig(
        epochs=epochs, initial_epoch=initial_epoch, global_batch_size=batch_size,
        steps_per_epoch=steps_per_epoch, validation_steps=validation_steps,
        validation_freq=validation_freq, run_eagerly=model.run_eagerly,
        steps_per_execution=model.steps_per_execution,
    )  # fmt: skip
    engine.fit(
        state_of(model), x, config, y=y, sample_weight=sample_weight, class_weight=class_weight,
        validation_data=validation_data, validation_split=validation_split, shuffle=shuffle,
        hooks=[engine.KerasCallbacks([*callbacks, history])],
    )  # fmt: skip
    model.history = history
    return history


def evaluate(
    model, x=None, y=None, batch_size=None, verbose="auto", sample_weight=None, steps=None,
    callbacks=None, return_dict=False,
):  # fmt: skip
    model._assert_compile_called("evaluate")
    callbacks, _ = as_list(callbacks)
    config = engine.TrainConfig(
        global_batch_size=batch_size, validation_steps=steps, run_eagerly=model.run_eagerly,
        steps_per_execution=model.steps_per_execution,
    )  # fmt: skip
    logs = engine.evaluate(
        state_of(model), x, config, y=y, sample_weight=sample_weight,
        hooks=[engine.KerasCallbacks(callbacks)],
    )  # fmt: skip
    return logs if return_dict else model._flatten_metrics_in_order(logs)


def predict(model, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
    callbacks, _ = as_list(callbacks)
    config = engine.TrainConfig(
        global_batch_size=batch_size, run_eagerly=model.run_eagerly,
        steps_per_execution=model.steps_per_execution,
    )  # fmt: skip
    hooks = [engine.KerasCallbacks(callbacks)]
    return engine.predict(state_of(model), x, config, steps=steps, hooks=hooks)


def as_list(callbacks):
    is_list = isinstance(callbacks, keras.callbacks.CallbackList)
    given = callbacks.callbacks if is_list else keras.tree.flatten(callbacks or [])
    history = next((c for c in given if isinstance(c, keras.callbacks.History)), None)
    return [c for c in given if c is not history], history or keras.callbacks.History()


def state_of(model):
    strategy = model._distribute_strategy
    with strategy.scope() if strategy else contextlib.nullcontext():
        return engine.TrainState(model)


@pytest.fixture(autouse=True)
def trains_with_the_engine(monkeypatch):
    for function in (fit, evaluate, predict):
        monkeypatch.setattr(TensorFlowTrainer, function.__name__, function)


def pytest_addoption(parser):
    parser.addoption("--outcomes", help="file for the outcome of each test")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    path = item.config.getoption("--outcomes")
    if path and (report.when == "call" or report.failed):
        name = f"{item.module.__name__.removeprefix('keras.src.')}::{item.name}"
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{report.outcome} {name}\n")
    return report
