"""predict gives the outputs of Keras's, in the order of the data, and changes nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.engine.config import TrainConfig
from gradloop.engine.options import ConfigError
from gradloop.engine.predict_function import make_predict_function
from gradloop.engine.prediction import predict
from tests.engine.nets import (
    BATCH_SIZE,
    NUM_EXAMPLES,
    Subclassed,
    build_two_by_two,
    make_config,
    make_state,
    make_tiny,
    mirrored,
    two_by_two_arguments,
)


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_predict_equals_keras_bit_for_bit(arrays, num_replicas):
    x = arrays[0][:25]  # the last batch has one example: the second replica gets none
    structure = {"a": x, "b": x[:, :2]}
    data = tf.data.Dataset.from_tensor_slices((structure, x[:, 0])).batch(BATCH_SIZE)
    strategy = mirrored() if num_replicas == 2 else None
    state = make_state(build_two_by_two, two_by_two_arguments, strategy)
    expected = state.model.predict(data, verbose=0)
    outputs = predict(state, data, make_config())
    assert outputs.keys() == expected.keys() == {"label", "value"}
    for name in expected:
        assert outputs[name].shape[0] == 25
        np.testing.assert_array_equal(outputs[name], expected[name])


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_predict_traces_once(arrays, num_replicas):
    calls = []

    class Counted(Subclassed):
        def call(self, x):
            calls.append(x.shape)
            return super().call(x)

    data = tf.data.Dataset.from_tensor_slices(arrays[0]).batch(BATCH_SIZE)
    state = make_state(
        Counted, lambda: {"optimizer": "sgd"}, mirrored() if num_replicas == 2 else None
    )
    state.build(data.element_spec)
    calls.clear()
    outputs = predict(state, data, make_config())
    assert outputs.shape == (NUM_EXAMPLES, 3)
    assert len(calls) == num_replicas  # once a replica


def test_a_call_that_fails_leaves_nothing_to_the_next_one(arrays, monkeypatch):
    state, x = make_state(), arrays[0]
    expected = predict(state, x, make_config())
    with monkeypatch.context() as patch:
        patch.setattr("gradloop.engine.prediction._to_host", lambda outputs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predict(state, x, make_config(steps_per_execution=2))
    np.testing.assert_array_equal(predict(state, x, make_config()), expected)


def test_targets_and_weights_are_ignored_and_nothing_changes(arrays):
    state = make_state()
    state.build(tf.data.Dataset.from_tensor_slices(arrays).batch(BATCH_SIZE).element_spec)
    before = {name: v.numpy() for name, v in state.named_variables()}
    outputs = [
        predict(state, tf.data.Dataset.from_tensor_slices(part).batch(BATCH_SIZE), make_config())
        for part in (arrays[0], arrays[:1], arrays[:2], arrays)
    ]
    for other in outputs[1:]:
        np.testing.assert_array_equal(other, outputs[0])
    for name, variable in state.named_variables():  # dropout's seeds and the metrics among them
        np.testing.assert_array_equal(variable.numpy(), before[name], err_msg=name)


def test_predict_without_data_is_an_error(dataset):
    with pytest.raises(ValueError, match="The dataset has no batch"):
        predict(make_tiny(), dataset.take(0), make_config())
    with pytest.raises(ValueError, match="The dataset has no batch"):
        predict(make_tiny(), dataset.filter(lambda x, y: False), make_config())


def test_predict_without_end_is_an_error(dataset):
    with pytest.raises(ValueError, match="no end"):
        predict(make_tiny(), dataset.repeat(), make_config())


def test_predict_takes_data_of_unknown_length(dataset):
    state = make_tiny()
    unknown = dataset.filter(lambda x, y: True)
    expected = predict(state, dataset, make_config())
    np.testing.assert_array_equal(predict(state, unknown, make_config()), expected)


def test_predict_function_gives_the_outputs_of_a_batch_in_order(dataset):
    strategy = mirrored()
    state = make_state(strategy=strategy)
    state.build(dataset.element_spec)
    function = make_predict_function(state, strategy, TrainConfig())
    distributed = strategy.experimental_distribute_dataset(dataset)
    outputs = np.concatenate([function(batch) for batch in distributed])
    x = np.concatenate([x for x, _ in dataset])
    np.testing.assert_allclose(outputs, state.model(x), rtol=1e-5)


@pytest.mark.parametrize("jit_scope", ["step", "loop", "update"])
def test_predict_compiled_by_xla_gives_the_same_outputs(dataset, jit_scope):
    state = make_tiny()
    expected = predict(state, dataset, make_config(jit_compile=False))
    found = predict(state, dataset, make_config(jit_compile=True, jit_scope=jit_scope))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_xla_around_replicas_is_an_error(dataset):
    state = make_state(strategy=mirrored())
    with pytest.raises(ConfigError, match="jit_scope='loop' with 2 replicas"):
        predict(state, dataset, make_config(jit_compile=True, jit_scope="loop"))


def test_the_limit_of_keras_counts_as_in_keras(arrays):
    state = make_tiny()
    keras.config.set_max_steps_per_epoch(2)
    try:
        with pytest.warns(UserWarning, match="Limiting steps_per_epoch to 2"):
            expected = state.model.predict(arrays[0], batch_size=BATCH_SIZE, verbose=0)
        with pytest.warns(UserWarning, match="limits steps=2"):
            found = predict(state, arrays[0], make_config(global_batch_size=BATCH_SIZE))
        one = predict(state, arrays[0], make_config(global_batch_size=BATCH_SIZE), steps=1)
    finally:
        keras.config.set_max_steps_per_epoch(None)
    np.testing.assert_array_equal(found, expected)
    assert len(expected) == 2 * BATCH_SIZE and len(one) == BATCH_SIZE
