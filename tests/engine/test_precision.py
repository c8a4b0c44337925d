"""The dtype policy: a model that computes otherwise than the config says is noticed."""

import warnings

import keras
import numpy as np
import pytest

from gradloop import engine

X, Y = np.ones((8, 4), "float32"), np.ones((8, 1), "float32")


def state_of(*layers):
    return engine.TrainState(keras.Sequential([keras.Input((4,)), *layers]), "sgd", loss="mse")


def fit(state, precision):
    return engine.fit(state, X, engine.TrainConfig(precision=precision), y=Y)


def configure(precision):
    engine.configure_runtime(engine.TrainConfig(precision=precision))


def test_layers_created_before_the_policy_was_set_are_an_error():
    layer = keras.layers.Dense(1, name="early")
    configure("mixed_bfloat16")
    with pytest.raises(engine.ConfigError) as raised:
        fit(state_of(layer), "mixed_bfloat16")
    message = str(raised.value)
    assert "precision='mixed_bfloat16'" in message
    assert "'early' computes in float32" in message
    assert "before any layer is created" in message


def test_a_layer_in_half_precision_is_an_error_where_float32_is_asked_for_at_any_depth():
    inner = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(1, dtype="mixed_bfloat16", name="low")]
    )
    with pytest.raises(engine.ConfigError, match="'low' computes in bfloat16"):
        fit(state_of(inner), "float32")
    assert fit(state_of(inner), None).history["loss"]


def test_a_model_in_half_precision_with_a_head_in_float32_is_what_is_asked_for():
    configure("mixed_bfloat16")
    state = state_of(keras.layers.Dense(3), keras.layers.Dense(1, dtype="float32"))
    assert fit(state, "mixed_bfloat16").history["loss"]


def test_a_policy_that_clear_session_forgot_is_named():
    configure("mixed_bfloat16")
    keras.utils.clear_session(free_memory=False)
    with pytest.raises(engine.ConfigError, match=r"'float32'.*clear_session"):
        fit(state_of(keras.layers.Dense(1)), "mixed_bfloat16")


def test_a_policy_left_by_an_earlier_config_is_a_warning_where_the_next_sets_none():
    configure("mixed_bfloat16")
    with pytest.warns(UserWarning, match="still 'mixed_bfloat16', of an earlier"):
        configure(None)
    assert keras.config.dtype_policy().name == "mixed_bfloat16"


def test_a_config_that_sets_precision_puts_the_policy_back():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        configure("mixed_bfloat16")
        configure("mixed_bfloat16")
        configure("float32")
        configure(None)
    assert fit(state_of(keras.layers.Dense(1)), "float32").history["loss"]


def test_a_policy_that_a_person_set_is_left_without_a_word():
    keras.config.set_dtype_policy("mixed_float16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        configure(None)
    assert keras.config.dtype_policy().name == "mixed_float16"
