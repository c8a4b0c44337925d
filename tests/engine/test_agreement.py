"""No field of TrainConfig is ignored: each changes what happens, or raises."""

import contextlib
import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.engine.config import TrainConfig
from gradloop.engine.hooks import LambdaHook, OnNonfinite, StopOnNaN
from gradloop.engine.loop import fit
from gradloop.engine.options import ConfigError
from gradloop.engine.runtime import configure_runtime
from tests.engine import checks_of_compiling, checks_of_replicas  # noqa: F401 - add theirs
from tests.engine.field_checks import CHECKS, plain, refuses, shows, train
from tests.engine.nets import (
    NUM_BATCHES,
    build_dense,
    make_config,
    make_pipeline,
    make_state,
    make_tiny,
    num_updates,
)
from tests.engine.observers import Every


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(TrainConfig)])
def test_no_field_is_ignored(name, arrays):
    assert name in CHECKS, f"{name} is new: show here that it takes effect, or raises"
    CHECKS[name](name, arrays)


def test_no_check_is_of_a_field_that_is_gone():
    assert set(CHECKS) == {field.name for field in dataclasses.fields(TrainConfig)}


# What the loop does.


@shows("epochs", "initial_epoch")
def epochs(name, arrays):
    assert train(arrays, epochs=3, initial_epoch=1).epoch == [1, 2]
    assert train(arrays, epochs=2).epoch == [0, 1]


@shows("steps_per_epoch")
def steps_per_epoch(name, arrays):
    assert train(arrays).epoch_steps == [NUM_BATCHES]
    assert train(arrays, steps_per_epoch=2).epoch_steps == [2]


@shows("validation_freq")
def validation_freq(name, arrays):
    assert len(train(arrays, epochs=4).history["val_loss"]) == 4
    assert len(train(arrays, epochs=4, validation_freq=2).history["val_loss"]) == 2


@shows("validate_every_steps")
def validate_every_steps(name, arrays):
    def num_evaluations(**fields):
        ends = []
        hook = LambdaHook(on_eval_end=lambda info: ends.append(info.progress.num_steps_completed))
        data = plain(arrays)
        fit(make_tiny(), data, make_config(**fields), validation_data=data, hooks=[hook])
        return ends

    assert num_evaluations() == [NUM_BATCHES]
    assert num_evaluations(validate_every_steps=3) == [3, 6, NUM_BATCHES]


@shows("gradient_accumulation_steps")
def gradient_accumulation_steps(name, arrays):
    def num_made(**fields):
        train(arrays, state=(state := make_tiny()), **fields)
        return num_updates(state)

    assert num_made() == NUM_BATCHES
    assert num_made(gradient_accumulation_steps=3) == 3


@shows("on_nonfinite")
def on_nonfinite(name, arrays):
    """test_nonfinite.py shows what each of them does."""
    x = arrays[0].copy()
    x[5] = float("inf")  # in the second batch

    def num_made(action, hooks):
        state, config = make_tiny(), make_config(on_nonfinite=action)
        fit(state, plain((x, arrays[1])), config, hooks=hooks)
        return num_updates(state)

    assert num_made(None, []) == num_made("off", []) == NUM_BATCHES
    assert num_made("skip", [OnNonfinite("skip", line=str)]) == NUM_BATCHES - 1
    assert num_made("stop", [OnNonfinite("stop")]) == 1
    refuses("on_nonfinite='skip' needs the hook", train, arrays, on_nonfinite="skip")
    refuses("hooks has engine.StopOnNaN", num_made, "off", [StopOnNaN()])


@shows("run_eagerly")
def run_eagerly(name, arrays):
    def num_calls(**fields):
        calls = []
        fit(
            make_tiny(), plain(arrays), make_config(**fields),
            train_step=lambda state, batch: calls.append(tf.executing_eagerly()),
        )  # fmt: skip
        return calls

    assert num_calls(run_eagerly=True) == [True] * NUM_BATCHES
    assert num_calls() == [False]


@shows("validation_steps")
def validation_steps(name, arrays):
    def val_loss(**fields):
        return train(arrays, **fields).history["val_loss"]

    assert val_loss(validation_steps=1) != val_loss() == val_loss(validation_steps=NUM_BATCHES)


@shows("steps_per_execution")
def steps_per_execution(name, arrays):
    for size, ends in ((2, [2, 4, 6, 7]), (5, [5, 7])):
        hook = Every()
        fit(make_tiny(), plain(arrays), TrainConfig(steps_per_execution=size), hooks=[hook])
        assert hook.ends == ends


@shows("max_retraces")
def max_retraces(name, arrays):
    weighted = plain(arrays).map(lambda x, y: (x, y, tf.ones(tf.shape(y)[0])))
    for allowed, expected in ((None, contextlib.nullcontext()), (0, pytest.raises(ConfigError))):
        state = make_tiny()
        fit(state, plain(arrays), make_config(max_retraces=allowed))
        with expected:
            fit(state, weighted, make_config(max_retraces=allowed))


@shows("input")
def who_makes_the_batches(name, arrays):
    def num_seeks(value):
        dataset, seeks = make_pipeline(arrays), []
        seek = dataset.resident.seek
        dataset.resident.seek = lambda *args: (seeks.append(args), seek(*args))
        fit(make_tiny(), dataset, make_config(input=value))
        return len(seeks)

    is_cpu = not tf.config.list_physical_devices("GPU")
    assert num_seeks("streamed") == 0
    assert num_seeks("auto") == is_cpu
    refuses("input='resident' is for the pipeline's datasets", train, arrays, input="resident")


# What must be set before the model is built.


@shows("precision")
def precision(name, arrays):
    message = "precision='mixed_bfloat16', but the model was built .* 'float32'"
    refuses(message, train, arrays, precision="mixed_bfloat16")
    train(arrays, precision="float32")
    configure_runtime(TrainConfig(precision="mixed_bfloat16"))
    state = make_tiny()
    assert state.model.layers[0].compute_dtype == "bfloat16"
    train(arrays, state=state, precision="mixed_bfloat16")
    refuses("precision='float32'", train, arrays, state=state, precision="float32")


@shows("max_skipped_steps")
def max_skipped_steps(name, arrays):
    """distribution/test_loss_scaling.py has what ends such a run."""
    x, y = np.full_like(arrays[0], np.nan), arrays[1]

    def scaled():
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=1.0)
        return {"optimizer": optimizer, "loss": "sparse_categorical_crossentropy"}

    for value, num_steps in ((2, 6), (5, 7), (None, 7)):
        ends = value is not None
        with pytest.warns(UserWarning, match="in a row") if ends else contextlib.nullcontext():
            history = train((x, y), state=make_state(build_dense, scaled), max_skipped_steps=value)
        assert (history.num_steps, history.stop_reason is not None) == (num_steps, ends)


@shows("seed")
def seed(name, arrays):
    def weights(value):
        configure_runtime(TrainConfig(seed=value))
        return keras.layers.Dense(2).kernel_initializer((3, 2)).numpy().tolist()

    assert weights(3) == weights(3) != weights(4)
    state = make_state()  # which sets the seed 1
    train(arrays, state=state, seed=1)
    refuses("seed=2 is not in effect: call configure_runtime", train, arrays, state=state, seed=2)
    configure_runtime(TrainConfig(seed=2**32 - 1))  # more than TensorFlow keeps of it
    train(arrays, state=state, seed=2**32 - 1)


@shows("deterministic", "intra_op_threads", "inter_op_threads")
def of_the_process(name, arrays):
    """test_runtime.py shows, in a process of its own, that they take effect and then agree."""
    value = True if name == "deterministic" else 1
    shown = "true" if name == "deterministic" else "1"
    refuses(f"{name}={shown} is not in effect", train, arrays, **{name: value})


@shows("global_batch_size")
def global_batch_size(name, arrays):
    """test_batch_size.py has the kinds of datasets."""
    train(arrays, global_batch_size=4)
    refuses("global_batch_size=5, but .* have 4 examples", train, arrays, global_batch_size=5)
