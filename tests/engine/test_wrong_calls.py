"""Wrong calls: one sentence that names what was passed, what is legal, and the fix."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from tests.engine.messages import raises_in_one_line
from tests.engine.nets import build_dense, make_tiny

X = np.ones((8, 4), "float32")
Y = np.array([0, 1, 2, 0, 1, 2, 0, 1])
CONFIG = engine.TrainConfig()
STRATEGY = tf.distribute.get_strategy()


def batches(*parts):
    return tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0]).batch(4)


def fit(x=None, *, state=None, **arguments):
    return engine.fit(state or make_tiny(), batches(X, Y) if x is None else x, CONFIG, **arguments)


def state_of(optimizer="sgd", loss="mse", **arguments):
    return engine.TrainState(build_dense(), optimizer, loss=loss, **arguments)


class CallableButUnhashable:
    __hash__ = None

    def __call__(self, state, batch):
        return {}


def with_model(call):
    return lambda: call(build_dense())


MODEL = ["the Keras model 'sequential'", "engine.TrainState(model, optimizer, loss=...)"]
DICT = ["config is a dict", "engine.TrainConfig(**config)"]
SWAPPED = ["state is a TrainConfig", "first"]

# A state or a config is wanted.
KINDS = {
    "fit, a model": (with_model(lambda m: engine.fit(m, batches(X, Y), CONFIG)), MODEL),
    "evaluate, a model": (with_model(lambda m: engine.evaluate(m, batches(X, Y), CONFIG)), MODEL),
    "predict, a model": (with_model(lambda m: engine.predict(m, X, CONFIG)), MODEL),
    "save, a model": (with_model(lambda m: engine.save_checkpoint("never", m)), MODEL),
    "restore, a model": (with_model(lambda m: engine.restore_checkpoint("never", m)), MODEL),
    "make, a model": (
        with_model(lambda m: engine.make_train_function(engine.train_step, m, STRATEGY, CONFIG)),
        MODEL,
    ),
    "make_predict, a model": (
        with_model(lambda m: engine.make_predict_function(m, STRATEGY, CONFIG)),
        MODEL,
    ),
    "fit, a string": (
        lambda: engine.fit("model", batches(X, Y), CONFIG),
        ["state must be an engine.TrainState, not 'model' of type str", "create it from"],
    ),
    "fit, None": (lambda: engine.fit(None, X, CONFIG), ["engine.TrainState, not None"]),
    "fit, swapped": (lambda: engine.fit(CONFIG, X, make_tiny()), SWAPPED),
    "evaluate, swapped": (lambda: engine.evaluate(CONFIG, X, make_tiny()), SWAPPED),
    "predict, swapped": (lambda: engine.predict(CONFIG, X, make_tiny()), SWAPPED),
    "fit, data last": (
        lambda: engine.fit(make_tiny(), CONFIG, batches(X, Y)),
        ["config must be an engine.TrainConfig, not <_BatchDataset", "data come before it"],
    ),
    "fit, dict": (lambda: engine.fit(make_tiny(), X, {"epochs": 2}), DICT),
    "evaluate, dict": (lambda: engine.evaluate(make_tiny(), X, {"epochs": 2}), DICT),
    "predict, dict": (lambda: engine.predict(make_tiny(), X, {}), DICT),
    "make_strategy, dict": (lambda: engine.make_strategy({"strategy": "mirrored"}), DICT),
    "configure_runtime, dict": (lambda: engine.configure_runtime({"seed": 1}), DICT),
    "make_eval, dict": (
        lambda: engine.make_eval_function(engine.eval_step, make_tiny(), STRATEGY, {}),
        DICT,
    ),
    "make_strategy, string": (
        lambda: engine.make_strategy("mirrored"),
        ["not 'mirrored' of type str", "engine.TrainConfig(epochs=3)"],
    ),
    "fit, class": (
        lambda: engine.fit(make_tiny(), X, engine.TrainConfig),
        ["config is the class TrainConfig", "TrainConfig()"],
    ),
    "make, strategy": (
        lambda: engine.make_train_function(engine.train_step, make_tiny(), "mirrored", CONFIG),
        ["tf.distribute.Strategy, not 'mirrored'", "engine.make_strategy(config)"],
    ),
    "compare, state": (
        lambda: engine.compare_with_fit(make_tiny(), lambda: batches(X, Y), CONFIG),
        ["make_state must be a function", "not an object of type TrainState", "lambda"],
    ),
    "compare, model": (
        lambda: engine.compare_with_fit(build_dense, lambda: batches(X, Y), CONFIG),
        ["what make_state returns is the Keras model", "engine.TrainState(model"],
    ),
    "save, swapped": (
        lambda: engine.save_checkpoint(make_tiny(), "never"),
        ["path must name a file or a folder", "TrainState", "it comes first"],
    ),
    "save, not built": (
        lambda: engine.save_checkpoint("never", make_tiny()),
        ["not built", "state.build(dataset.element_spec)"],
    ),
    "restore, not built": (
        lambda: engine.restore_checkpoint("never", make_tiny()),
        ["not built", "state.build(dataset.element_spec)"],
    ),
    "build, dataset": (
        lambda: make_tiny().build(batches(X, Y)),
        ["specs of a batch, not <_BatchDataset", "pass dataset.element_spec"],
    ),
}

# TrainState and its parts.
PARTS = {
    "model, string": (lambda: engine.TrainState("cnn"), ["keras.Model, not 'cnn'", "Sequential"]),
    "model, layer": (
        lambda: engine.TrainState(keras.layers.Dense(1)),
        ["keras.Model, not <Dense", "keras.Sequential([layer])"],
    ),
    "model, class": (
        lambda: engine.TrainState(keras.Sequential),
        ["the class Sequential", "create one, Sequential(...)"],
    ),
    "model, function": (lambda: engine.TrainState(build_dense), ["function", "call what builds"]),
    "optimizer, class": (
        lambda: state_of(keras.optimizers.SGD),
        ["optimizer has the class SGD", "SGD(...)"],
    ),
    "optimizer, typo": (lambda: state_of("addam"), ["'addam'", "Did you mean 'Adam'?"]),
    "loss, class": (
        lambda: state_of(loss=keras.losses.Huber),
        ["loss has the class Huber", "Huber(...)"],
    ),
    "loss, typo": (
        lambda: fit(state=state_of(loss="mean_squared_eror")),
        ["'mean_squared_eror'", "Did you mean 'mean_squared_error'?"],
    ),
    "metrics, class": (
        lambda: state_of(metrics=[keras.metrics.AUC]),
        ["metrics has the class AUC", "AUC(...)"],
    ),
    "metrics, no list": (lambda: state_of(metrics="mae"), ["to be a list", "metrics=mae", "[...]"]),
    "metrics, typo": (
        lambda: fit(state=state_of(metrics=["acuracy"])),
        ["'acuracy'", "Did you mean 'accuracy'?"],
    ),
    "extras, list": (lambda: state_of(extras=[1]), ["extras must be a dict", "[1] of type list"]),
    "extras, class": (
        lambda: state_of(extras={"a": keras.optimizers.SGD}),
        ["extras['a'] is the class SGD", "optimizer"],
    ),
}

# Hooks, steps and flags.
HOOKS = {
    "one hook": (lambda: fit(hooks=engine.ProgressBar()), ["put it in a list, hooks=[...]"]),
    "a class": (lambda: fit(hooks=engine.ProgressBar), ["the class ProgressBar", "hooks=[engine."]),
    "a list of a class": (
        lambda: fit(hooks=[engine.ProgressBar]),
        ["the class ProgressBar", "create one, ProgressBar(...)"],
    ),
    "a string": (lambda: fit(hooks="bar"), ["hooks must be a list", "'bar' of type str"]),
    "a callback": (
        lambda: fit(hooks=keras.callbacks.TerminateOnNaN()),
        ["type TerminateOnNaN", "engine.KerasCallbacks([...])"],
    ),
    "a function": (lambda: fit(hooks=[print]), ["print", "LambdaHook(on_epoch_end=function)"]),
    "evaluate": (
        lambda: engine.evaluate(make_tiny(), batches(X, Y), CONFIG, hooks=engine.Hook()),
        ["put it in a list"],
    ),
    "step, number": (lambda: fit(train_step=3), ["train_step must be a function", "not 3 of type"]),
    "step, string": (lambda: fit(eval_step="x"), ["eval_step must be a function", "not 'x'"]),
    "step, class": (
        lambda: fit(train_step=CallableButUnhashable),
        ["the class CallableButUnhashable", "create an object"],
    ),
    "step, not hashable": (
        lambda: fit(train_step=CallableButUnhashable()),
        ["cannot be hashed", "@dataclass(eq=False)"],
    ),
    "step, arguments": (
        lambda: fit(train_step=lambda state, batch, rate: {}),
        ["(state, batch, rate) cannot be called", "functools.partial"],
    ),
    "step, made": (
        lambda: engine.make_train_function(make_tiny(), engine.train_step, STRATEGY, CONFIG),
        ["train_step must be a function of (state, batch)", "TrainState"],
    ),
    "resume": (
        lambda: fit(resume="runs/1"),
        ["resume must be True or False, not 'runs/1'", "engine.restore_checkpoint(path, state)"],
    ),
    "steps": (
        lambda: engine.predict(make_tiny(), X, CONFIG, steps=0),
        ["steps=0", "an int of 1 or more"],
    ),
}

# Data.
DATA = {
    "string": (lambda: fit("mnist"), ["x is 'mnist' of type str", "tf.data.Dataset"]),
    "function": (lambda: fit(lambda: X), ["of type function", "call it"]),
    "function of a context": (lambda: fit(lambda c: X), ["InputContext returned", "tf.data.Data"]),
    "lists": (lambda: fit([[1.0, 2.0]]), ["x is a list that holds 1.0", "np.asarray(x)"]),
    "weights": (
        lambda: fit(X, y=Y, sample_weight="balanced"),
        ["sample_weight is 'balanced' of type str"],
    ),
    "dates": (
        lambda: fit(np.array(["2020-01-01"] * 8, "datetime64[D]"), y=Y),
        ["x is an array of dtype datetime64[D]", "astype('float32')"],
    ),
    "single value": (lambda: fit(np.array(3.0), y=Y), ["single value", "array of examples"]),
    "sizes": (lambda: fit(X, y=Y[:5]), ["x 8, y 5", "one target"]),
    "sizes of sparse ones": (
        lambda: fit(tf.sparse.from_dense(X), y=Y[:5]),
        ["x 8, y 5", "one target"],
    ),
    "a list beside strings": (
        lambda: fit(np.array(["a"] * 8), y=[0] * 8),
        ["y is a list that holds 0", "np.asarray(y)"],
    ),
    "strings beside objects": (
        lambda: fit(np.array(["a"] * 8, object), y=np.array(["a"] * 8)),
        ["y is an array of dtype <U1", "tf.constant(y)"],
    ),
    "split": (lambda: fit(X, y=Y, validation_split=20), ["validation_split=20", "0.2"]),
    "class weights": (
        lambda: fit(class_weight=[1, 2, 3]),
        ["class_weight must be a dict", "not [1, 2, 3]", "{0: 1.0"],
    ),
    "not batched": (
        lambda: fit(batches(X, Y).unbatch()),
        ["single examples of the shape (4,)", "dataset.batch(batch_size)"],
    ),
    "width": (lambda: fit(batches(X[:, :3], Y)), ["(None, 3)", "the model takes (None, 4)"]),
    "width in predict": (
        lambda: engine.predict(make_tiny(), X[:, :3], CONFIG),
        ["(None, 3)", "the model takes (None, 4)"],
    ),
    "strings": (
        lambda: fit(batches(np.array(["a"] * 8, object), Y)),
        ["strings", "TextVectorization"],
    ),
    "dict": (
        lambda: fit(batches({"image": X, "label": Y})),
        ["dict with the keys image, label", "one input", "dataset.map"],
    ),
    "parts": (lambda: fit(batches(X, Y, Y, Y)), ["4 parts", "(x, y, sample_weight)"]),
    "targets": (lambda: fit(batches(X, (Y, Y))), ["Targets of a batch: 2", "of the model: 1"]),
    "target shape": (
        lambda: fit(batches(X, np.ones((8, 2))), state=state_of(loss="mse")),
        ["targets of a batch have the shape (None, 2)", "(None, 3)", "'mse'"],
    ),
}

TABLE = {
    f"{table}: {name}": row
    for table, rows in (("kinds", KINDS), ("parts", PARTS), ("hooks", HOOKS), ("data", DATA))
    for name, row in rows.items()
}


@pytest.mark.parametrize("name", TABLE)
def test_a_wrong_call_is_told_what_to_pass_instead(name):
    call, parts = TABLE[name]
    raises_in_one_line(*parts, call=call)


def test_what_looks_unusual_and_is_legal_is_taken():
    @dataclasses.dataclass(frozen=True)
    class Step:
        rate: float

        def __call__(self, state, batch):
            return engine.train_step(state, batch)

    def step_of_three(rate, state, batch):
        return engine.train_step(state, batch)

    for step in (Step(0.1), Step(0.1).__call__, functools.partial(step_of_three, 0.1)):
        assert fit(train_step=step, hooks=None).history["loss"]
    assert fit(hooks=(engine.Hook(),), class_weight={np.int64(0): 2.0}).history["loss"]
    sgd = {"class_name": "SGD", "config": {"learning_rate": 0.1}}
    state = state_of(sgd, "sparse_categorical_crossentropy", metrics=["acc"])
    assert fit(state=state).history["acc"]
