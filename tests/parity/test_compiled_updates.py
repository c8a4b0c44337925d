"""Updates compiled by XLA: all bits of fit, whatever Keras does around them; or Keras's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.engine import compiled_updates, update_check
from gradloop.engine.options import ConfigError

OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1, weight_decay=0.01),
    "momentum": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "nesterov": lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True, clipvalue=0.01),
    "adam": lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.5),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1, clipnorm=0.1),
    "nadam": lambda: keras.optimizers.Nadam(0.01, use_ema=True, ema_overwrite_frequency=7),
    "lion": lambda: keras.optimizers.Lion(
        keras.optimizers.schedules.CosineDecay(0.001, 100, warmup_target=0.01, warmup_steps=9)
    ),
}
NUM_STEPS = 150


def make_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 24)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, x[:, :3].argmax(1))).batch(32).repeat()


def make_model(optimizer):
    """Returns a net whose variables have sizes that fill vector registers, and others."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(64, "relu"), keras.layers.Dropout(0.1), keras.layers.Dense(33)]
    model = keras.Sequential([keras.Input((24,)), *layers, keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, steps_per_execution=10, jit_compile=False)
    return model


def train(model, **fields):
    state = engine.TrainState(model)
    config = engine.TrainConfig(**{"steps_per_epoch": NUM_STEPS, **fields})
    engine.fit(state, make_data(), config)
    return state


def values(model):
    return [v.numpy() for v in (*model.variables, *model.optimizer.variables)]


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_and_slots_are_those_of_fit(name):
    model = make_model(OPTIMIZERS[name]())
    model.fit(make_data(), steps_per_epoch=NUM_STEPS, shuffle=False, verbose=0)
    other = make_model(OPTIMIZERS[name]())
    state = train(other, compile_update=True)
    assert "compiled by XLA with all bits" in state.compiled_updates.outcome
    assert_equal(values(other), values(model))


@keras.saving.register_keras_serializable()
class Scaled(keras.layers.Layer):
    """Multiplies by a number."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(), initializer="ones", name="factor")

    def call(self, x):
        return x * self.factor


def make_net_of_words():
    """Returns a net with sparse gradients, a scalar, and what is left out of the decay."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Embedding(50, 24), keras.layers.GlobalAveragePooling1D(), Scaled()]
    model = keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(3)])
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=False)
    return model


def test_sparse_gradients_scalars_and_what_does_not_decay():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 50, size=(64, 6))
    data = tf.data.Dataset.from_tensor_slices((x, x[:, 0] % 3)).batch(32).repeat()
    model, other = make_net_of_words(), make_net_of_words()
    model.fit(data, steps_per_epoch=20, shuffle=False, verbose=0)
    before = [v.numpy() for v in other.trainable_variables]
    state = engine.TrainState(other)
    engine.fit(state, data, engine.TrainConfig(steps_per_epoch=20, compile_update=True))
    assert "compiled by XLA with all bits" in state.compiled_updates.outcome
    assert_equal(values(other), values(model))
    assert all(
        (v.numpy() != b).any() for v, b in zip(other.trainable_variables, before, strict=True)
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The dataset has no seek")
def test_a_run_goes_on_with_either():
    whole = make_model(OPTIMIZERS["adamw"]())
    train(whole, compile_update=False, epochs=2, steps_per_epoch=20)
    model = make_model(OPTIMIZERS["adamw"]())
    state = train(model, compile_update=True, steps_per_epoch=20)
    fields = {"epochs": 2, "steps_per_epoch": 20, "compile_update": False}
    engine.fit(state, make_data(), engine.TrainConfig(**fields), resume=True)
    assert_equal(values(model), values(whole))


@pytest.mark.slow
def test_where_bits_differ_keras_operations_are_kept(monkeypatch):
    """Without the seals, XLA rounds a product and a sum once."""
    monkeypatch.setattr(compiled_updates, "_ROUNDED", ())
    state = train(make_model(OPTIMIZERS["adam"]()), compile_update=True, steps_per_epoch=20)
    assert "other bits" in state.compiled_updates.outcome
    plain = make_model(OPTIMIZERS["adam"]())
    train(plain, compile_update=False, steps_per_epoch=20)
    assert_equal(values(state.model), values(plain))


@pytest.mark.parametrize(
    ("make", "expected"),
    [(keras.optimizers.Adam, True), (keras.optimizers.RMSprop, False)],
)
def test_the_check_sees_other_bits(make, expected):
    run = compiled_updates.run_compiled
    assert update_check.has_same_bits(make(), [(40, 30), (10,)], run) is expected


def test_updates_are_left_alone_unless_asked_for():
    state = train(make_model("adam"), steps_per_epoch=2)
    assert state.compiled_updates.outcome == ""


@pytest.mark.parametrize(
    "optimizer", [keras.optimizers.RMSprop(), keras.optimizers.Adam(amsgrad=True)]
)
def test_what_cannot_keep_the_bits_is_refused(optimizer):
    with pytest.raises(ConfigError, match="it needs SGD, Adam"):
        train(make_model(optimizer), compile_update=True)
