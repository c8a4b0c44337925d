"""A model that is built again in the same process takes the checkpoint of the first one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.engine.storage import matching
from tests.engine.storage.states import all_bytes, fake_state


def _sequential():
    layers = [keras.layers.Dense(3), keras.layers.Dropout(0.5), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((3,)), *layers, keras.layers.BatchNormalization()])


def _functional():
    x = keras.Input((3,))
    left, right = keras.layers.Dense(3)(x), keras.layers.Dense(3)(x)
    joined = keras.layers.Dropout(0.5)(keras.layers.Add()([left, right]))
    return keras.Model(x, keras.layers.Dense(3)(joined))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = [keras.layers.Dense(3) for _ in range(3)]
        self.dropout = keras.layers.Dropout(0.5)

    def call(self, x, training=False):
        for block in self.blocks:
            x = self.dropout(block(x), training=training)
        return x


BUILDERS = {"sequential": _sequential, "functional": _functional, "subclassed": Subclassed}


def _state(build, optimizer="adam"):
    state = engine.TrainState(build(), optimizer, loss="mse", metrics=["mae"])
    state.build((tf.TensorSpec((None, 3)), tf.TensorSpec((None, 3))))
    return state


def _train(state, resume=False, epochs=2):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 32, 3)).astype("float32")
    config = engine.TrainConfig(epochs=epochs, global_batch_size=8)
    return engine.fit(state, x, config, y=y, resume=resume)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_same_architecture_takes_it_and_goes_on_with_equal_bits(tmp_path, name):
    state = _state(BUILDERS[name])
    _train(state)
    path = engine.save_checkpoint(tmp_path, state)
    rebuilt = _state(BUILDERS[name])
    names, others = ([n for n, _ in s.named_variables()] for s in (state, rebuilt))
    assert set(names) != set(others), "Keras counts no more, and the test tests nothing"
    engine.restore_checkpoint(path, rebuilt)
    assert list(all_bytes(rebuilt).values()) == list(all_bytes(state).values())
    _train(state, resume=True, epochs=3)
    _train(rebuilt, resume=True, epochs=3)
    assert list(all_bytes(rebuilt).values()) == list(all_bytes(state).values())


def test_the_weights_alone_go_into_a_rebuilt_model_too(tmp_path):
    state = _state(_sequential)
    path = engine.save_checkpoint(tmp_path, state)
    rebuilt = _state(_sequential, optimizer="sgd")
    engine.restore_checkpoint(path, rebuilt, only="model")
    for ours, theirs in zip(rebuilt.model.weights, state.model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("build", "optimizer", "words"),
    [
        (_functional, "adam", "belongs to another model or optimizer: missing in the file: model/"),
        (Subclassed, "adam", "belongs to another model or optimizer"),
        (_sequential, "rmsprop", "missing in the file: optimizer/rm_sprop"),
        (_sequential, "sgd", "only in the file: optimizer/adam"),
    ],
)
def test_another_architecture_or_optimizer_is_still_refused(tmp_path, build, optimizer, words):
    path = engine.save_checkpoint(tmp_path, _state(_sequential))
    other = _state(build, optimizer)
    before = all_bytes(other)
    with pytest.raises(engine.CheckpointError, match=words):
        engine.restore_checkpoint(path, other)
    assert all_bytes(other) == before


def test_a_rebuilt_model_of_other_widths_is_refused_with_the_layer(tmp_path):
    path = engine.save_checkpoint(tmp_path, fake_state(**{"model/dense/kernel": np.zeros((2, 3))}))
    other = fake_state(**{"model/dense_4/kernel": np.zeros((2, 5))})
    words = r"another shape: model/dense_4/kernel \(\(2, 3\), here \(2, 5\)\)"
    with pytest.raises(engine.CheckpointError, match=words):
        engine.restore_checkpoint(path, other)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("model/sequential_3/dense_12/kernel", "model/sequential/dense/kernel"),
        ("optimizer/rmsprop_1/dense_2_kernel_velocity", "optimizer/rmsprop/dense_kernel_velocity"),
        ("model/dropout_2/seed_generator_7/state", "model/dropout/seed_generator/state"),
        ("model/conv2d_1/kernel#2", "model/conv2d/kernel"),
        ("net_2/dense_1/bias", "net_2/dense/bias"),  # a person's own name
        ("model/v2_dense/x1", "model/v2_dense/x1"),
    ],
)
def test_keys_do_without_the_counters_of_keras(name, key):
    assert matching.canonical_keys([name]) == {name: key}


def test_equal_names_decide_before_the_order_does():
    names = ["model/block_1/kernel", "model/block_2/kernel"]
    assert matching.match(names, names[::-1]) == {name: name for name in names}
    here = ["model/block_3/kernel", "model/block_4/kernel"]
    assert matching.match(names, here) == dict(zip(here, names, strict=True))


def test_metrics_are_matched_in_order_only_if_all_are_there():
    saved, here = ["metrics/mean_1/total", "metrics/mean_2/total"], ["metrics/mean_3/total"]
    assert matching.match(saved, here) == {}
    assert matching.match(saved, ["metrics/mean_2/total"]) == {saved[1]: saved[1]}
    assert len(matching.match(saved, [*here, "metrics/mean_4/total"])) == 2
