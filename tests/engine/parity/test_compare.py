"""compare_with_fit: ULPs worked by hand, and what it says where the two sides differ."""

import functools

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from gradloop import engine
from gradloop.engine.parity import compare as compare_lib
from gradloop.engine.parity.comparison import Comparison, VariableDifference, count_ulps
from tests.parity import nets


def ulps(a, b, dtype):
    return count_ulps(np.array([a], dtype), np.array([b], dtype))[0]


@pytest.mark.parametrize(
    ("a", "b", "dtype", "expected"),
    [
        (1.0, 1.0, "float32", 0),
        (1.0, np.nextafter(np.float32(1), np.float32(2)), "float32", 1),
        (1.0, 2.0, "float32", 2**23),
        (0.0, 1e-45, "float32", 1),  # the smallest number above zero
        (-0.0, 0.0, "float32", 1),
        (-1e-45, 1e-45, "float32", 3),  # -tiny, -0, 0, tiny
        (1.0, 1.0009765625, "float16", 1),
        (1.0, 1.0078125, ml_dtypes.bfloat16, 1),
        (1.0, 1.0000000000000002, "float64", 1),
        (-3, 4, "int64", 7),
        (-(2**63), 2**63 - 1, "int64", 2**64 - 1),
        (0, 255, "uint8", 255),
        (False, True, "bool", 1),
    ],
)
def test_ulps(a, b, dtype, expected):
    assert ulps(a, b, dtype) == ulps(b, a, dtype) == expected


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float_and_its_neighbor_are_one_apart(value):
    value = np.float32(value)
    with np.errstate(over="ignore"):  # the largest float has no neighbor
        above = np.nextafter(value, np.float32(np.inf))
    if np.isfinite(above):
        # NumPy steps over the negative zero.
        assert ulps(value, above, "float32") == (2 if value == 0 and np.signbit(value) else 1)


def make_comparison(ours, theirs, num_different=0):
    variable = VariableDifference("model/kernel", 3 * num_different, num_different, 9, True)
    return Comparison({"loss": ours}, {"loss": theirs}, [variable], "first at step 2, in loss.")


def test_equal_only_if_every_variable_and_log_is():
    assert make_comparison([1.0, 2.0], [1.0, 2.0]).is_equal
    assert not make_comparison([1.0, 2.0], [1.0, 2.5]).is_equal
    assert not make_comparison([1.0, 2.0], [1.0]).is_equal
    assert not make_comparison([1.0], [1.0], num_different=1).is_equal


def test_a_loss_that_is_nan_on_both_sides_is_equal_in_the_table_too():
    comparison = make_comparison([float("nan")], [float("nan")])
    assert comparison.is_equal
    assert "NO" not in comparison.to_table()


def test_table_has_a_line_a_log_and_a_line_a_variable():
    table = make_comparison([1.0, 2.0], [1.0, 2.5], num_different=2).to_table().splitlines()
    assert [line.split() for line in table[1:3]] == [
        ["1", "loss", "1.0", "1.0", "yes"],
        ["2", "loss", "2.0", "2.5", "NO"],
    ]
    assert (
        "model/kernel                                                      6               2 of 9"
        in table
    )
    assert table[-1] == "DIFFERENT from fit: first at step 2, in loss."


def compare(**config):
    config = engine.TrainConfig(**{"epochs": 2, "steps_per_execution": 4, **config})
    return engine.compare_with_fit(nets.small_net, nets.small_data, config)


def test_first_step_that_differs_is_named(monkeypatch):
    right = engine.TrainState.apply_gradients

    def wrong_from_step_5(self, gradients, *args, **kwargs):
        factor = tf.where(self.optimizer.iterations.value < 4, 1.0, 1.5)
        right(self, [factor * g for g in gradients], *args, **kwargs)

    monkeypatch.setattr(engine.TrainState, "apply_gradients", wrong_from_step_5)
    comparison = compare()
    assert not comparison.is_equal
    assert comparison.first_difference.startswith("first at step 5, in ")
    assert max(v.max_ulps for v in comparison.variables) > 0


def test_a_difference_that_long_executions_alone_have_is_named(monkeypatch):
    right = engine.TrainState.scale_loss

    def wrong(self, loss, **kwargs):
        # Planted: the graph of a run whose executions are longer than one step is another one.
        return right(self, loss, **kwargs) * (2.0 if long_executions else 1.0)

    long_executions = True
    monkeypatch.setattr(engine.TrainState, "scale_loss", wrong)
    fit = compare_lib.loop.fit

    def fit_that_tells(state, dataset, config, **kwargs):
        nonlocal long_executions
        long_executions = config.steps_per_execution != 1
        return fit(state, dataset, config, **kwargs)

    monkeypatch.setattr(compare_lib.loop, "fit", fit_that_tells)
    assert "only with steps_per_execution=4" in compare().first_difference


def test_the_policy_and_the_class_weights_reach_both_sides():
    keras.config.set_dtype_policy("mixed_float16")
    comparison = engine.compare_with_fit(
        nets.small_net,
        nets.small_data,
        engine.TrainConfig(epochs=1),
        class_weight=dict.fromkeys(range(5), 0.0),
    )
    assert keras.config.dtype_policy().name == "mixed_float16"
    assert any("dynamic_scale" in v.name for v in comparison.variables)
    assert comparison.engine_history["loss"] == comparison.fit_history["loss"] == [0.0]


def test_initial_weights_are_the_same_even_if_the_state_is_not():
    seeds = iter(range(10))

    def make_state():
        keras.utils.set_random_seed(next(seeds))
        return nets.small_net(keras.optimizers.SGD(0.1))

    comparison = engine.compare_with_fit(make_state, nets.small_data, engine.TrainConfig(epochs=1))
    assert comparison.has_moved
    assert comparison.is_equal, comparison.to_table()


def test_a_later_first_epoch_with_steps_per_epoch_starts_where_fit_does():
    from gradloop.data import pipeline

    make_dataset = functools.partial(
        pipeline.make_dataset,
        nets.arrays(nets.NUM_FEATURES),
        nets.labels(),
        global_batch_size=nets.BATCH_SIZE,
        shuffle=True,
    )
    config = engine.TrainConfig(initial_epoch=1, epochs=3, steps_per_epoch=3)
    comparison = engine.compare_with_fit(nets.small_net, make_dataset, config)
    assert comparison.is_equal, comparison.to_table()


def test_fit_runs_one_step_an_execution_whatever_the_model_was_compiled_with():
    def make_state():
        state = nets.small_net()
        state.model.steps_per_execution = 2
        return state

    config = engine.TrainConfig(steps_per_epoch=3)
    found = engine.compare_with_fit(make_state, lambda: nets.small_data().repeat(), config)
    assert found.is_equal, found.to_table()


def test_steps_in_python_are_compared_with_those_of_fit():
    is_eager = []

    def surest(y, y_pred):
        is_eager.append(tf.executing_eagerly())
        return tf.reduce_max(y_pred, axis=-1)

    found = engine.compare_with_fit(
        lambda: nets.small_net(metrics=[surest]), nets.small_data,
        engine.TrainConfig(run_eagerly=True),
    )  # fmt: skip
    assert found.is_equal, found.to_table()
    assert "equal to fit(run_eagerly=True): " in found.to_table()
    assert is_eager.count(True) >= 2 * 7


@pytest.mark.parametrize(
    ("fields", "num_replicas", "message"),
    [
        ({"gradient_accumulation_steps": 4}, 1, "gradient_accumulation_steps=4 in a comparison"),
        ({"jit_compile": True}, 2, "jit_compile=true in a comparison on 2 replicas"),
    ],
)
def test_what_fit_cannot_train_alike_is_refused(fields, num_replicas, message):
    config = engine.TrainConfig(**fields)
    mirrored = engine.TrainConfig(strategy="mirrored", num_replicas=2)
    strategy = None if num_replicas == 1 else engine.make_strategy(mirrored)
    with pytest.raises(engine.ConfigError, match=message):
        engine.compare_with_fit(nets.small_net, nets.small_data, config, strategy=strategy)


def test_settings_that_fit_does_not_have_are_named_where_the_two_differ():
    found = compare(numerics="fast", clip="global")
    assert not found.is_equal
    ending = " Fit does not have numerics=fast, which may be why."
    assert found.to_table().endswith(ending)
    strategy = engine.make_strategy(engine.TrainConfig(strategy="mirrored", num_replicas=2))
    config = engine.TrainConfig(uneven="exact", clip="global", sync_statistics=False)
    named = compare_lib._name_own(config, strategy)
    assert named == " Fit does not have uneven=exact, clip=global, which may be why."
