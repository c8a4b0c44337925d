"""LSTM layers with fewer operations: Keras's values and gradients, and its code where they differ.

Bits differ: the tolerances are some roundings of float32.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.engine.execution_mode import find_mode
from gradloop.engine.fused_lstm import find_fused_lstms, fused_lstms

NUM_FEATURES = 3


class Own(keras.layers.LSTM):
    """A subclass, which may compute anything."""


def lstm(units=4, **options):
    return keras.layers.LSTM(units, **options)


FUSED = {
    "last": lambda: [lstm()],
    "sequences": lambda: [lstm(return_sequences=True)],
    "backwards": lambda: [lstm(go_backwards=True, return_sequences=True)],
    "states": lambda: [lstm(return_state=True)],
    "stacked": lambda: [lstm(return_sequences=True), lstm(6)],
    "bidirectional": lambda: [keras.layers.Bidirectional(lstm(return_sequences=True))],
    "wide": lambda: [lstm(200)],
}
LEFT_TO_KERAS = {
    "dropout": lambda: [lstm(dropout=0.5)],
    "recurrent dropout": lambda: [lstm(recurrent_dropout=0.5)],
    "activation": lambda: [lstm(activation="relu")],
    "recurrent activation": lambda: [lstm(recurrent_activation="hard_sigmoid")],
    "no bias": lambda: [lstm(use_bias=False)],
    "subclass": lambda: [Own(4)],
    "gru": lambda: [keras.layers.GRU(4)],
}


def build(make_layers, num_steps):
    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input((num_steps, NUM_FEATURES)), *make_layers()])


def run(model, shape, *, is_on):
    """Returns loss and gradients of inputs and weights, and whether a custom gradient was used."""
    x = tf.constant(np.random.default_rng(0).normal(size=shape).astype("float32"))
    spec = tf.TensorSpec([None, *model.input_shape[1:]])

    @tf.function(autograph=False, input_signature=[spec])
    def differentiate(x):
        with fused_lstms(model, is_on=is_on), tf.GradientTape() as tape:
            tape.watch(x)
            outputs = tf.nest.flatten(model(x, training=True))
            loss = tf.add_n([tf.reduce_mean(tf.sin(3 * tf.cast(y, "float32"))) for y in outputs])
        return loss, *tape.gradient(loss, [x, *(v.value for v in model.trainable_variables)])

    found = [np.array(tf.cast(value, tf.float32)) for value in differentiate(x)]
    operations = differentiate.get_concrete_function().graph.get_operations()
    return found, any(one.type == "IdentityN" for one in operations)


def assert_equal(make_layers, shape, *, num_steps="static", tolerance=2e-5):
    model = build(make_layers, shape[1] if num_steps == "static" else None)
    expected, _ = run(model, shape, is_on=False)
    found, is_fused = run(model, shape, is_on=True)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * max(np.abs(b).max(), 1e-3))
    return is_fused


@pytest.mark.parametrize("name", FUSED)
def test_values_and_gradients_are_those_of_keras(name):
    assert assert_equal(FUSED[name], (5, 4, NUM_FEATURES))


# One example: of the halves of the batch, one is empty. 36 steps: a loop of rounds.
@pytest.mark.parametrize(
    ("shape", "num_steps"),
    [((1, 3, 3), "static"), ((4, 1, 3), "static"), ((3, 36, 3), "static"), ((3, 5, 3), "any")],
)
def test_any_number_of_examples_and_steps(shape, num_steps):
    assert assert_equal(FUSED["sequences"], shape, num_steps=num_steps)


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [2, 37])
def test_a_penalty_on_gradients_reaches_the_weights(num_steps):
    def penalize(model, x):
        with tf.GradientTape() as outer:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = model(x, training=True)
            penalty = tf.reduce_sum(tape.gradient(y, x) ** 2)
        return outer.gradient(penalty, [v.value for v in model.trainable_variables])

    model = build(FUSED["last"], num_steps)
    x = tf.constant(np.random.default_rng(0).normal(size=(2, num_steps, 3)).astype("float32"))
    found = {}
    for is_on in (True, False):
        with fused_lstms(model, is_on=is_on):
            found[is_on] = tf.function(penalize, autograph=False)(model, x)
    for a, b in zip(found[True], found[False], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


def test_bfloat16_products():
    with engine.runtime.dtype_policy("mixed_bfloat16"):
        assert assert_equal(FUSED["stacked"], (5, 4, NUM_FEATURES), tolerance=0.05)


def test_masked_steps_are_left_to_keras():
    masked = lambda: [keras.layers.Masking(), lstm()]  # noqa: E731
    assert not assert_equal(masked, (5, 4, NUM_FEATURES), tolerance=0)


@pytest.mark.parametrize("name", LEFT_TO_KERAS)
def test_other_formulas_are_left_to_keras(name):
    assert find_fused_lstms(build(LEFT_TO_KERAS[name], 4)) == []


def test_layers_are_left_as_they_were():
    model = build(FUSED["last"], 4)
    before = dict(vars(model.layers[0]))
    with fused_lstms(model, is_on=True):
        assert "inner_loop" in vars(model.layers[0])
    assert vars(model.layers[0]).keys() == before.keys()


def train(numerics):
    state = engine.TrainState(
        build(lambda: [lstm(return_sequences=True), lstm(), keras.layers.Dense(1)], 4),
        keras.optimizers.SGD(0.1), loss="mse",
    )  # fmt: skip
    x = np.random.default_rng(1).normal(size=(12, 4, NUM_FEATURES)).astype("float32")
    dataset = tf.data.Dataset.from_tensor_slices((x, x.sum((1, 2))[:, None])).batch(5)
    before = state.model.get_weights()
    history = engine.fit(state, dataset, engine.TrainConfig(numerics=numerics, epochs=3))
    return before, state.model.get_weights(), history.history["loss"]


def test_training_moves_all_weights_as_the_exact_one_does():
    before, exact, losses = train("exact")
    _, fast, fast_losses = train("fast")
    assert all(np.any(a != b) for a, b in zip(before, fast, strict=True))
    np.testing.assert_allclose(fast_losses, losses, rtol=1e-4)
    for a, b in zip(fast, exact, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"numerics": "fast"}, True),
        ({}, False),
        ({"numerics": "fast", "jit_compile": True}, False),
        ({"numerics": "fast", "jit_compile": True, "jit_scope": "update"}, True),
        ({"numerics": "fast", "run_eagerly": True}, False),
    ],
)
def test_only_fast_numerics_fuse_and_only_outside_xla(changes, expected):
    state = engine.TrainState(build(FUSED["last"], 4), "sgd", loss="mse")
    config = engine.TrainConfig(**changes)
    assert find_mode(state, tf.distribute.get_strategy(), config).fuses_lstm is expected


def test_check_setup_says_which_layers_are_fused():
    model = build(lambda: [lstm(return_sequences=True, name="a"), lstm(dropout=0.1, name="b")], 4)
    found = engine.check_setup(engine.TrainConfig(numerics="fast"), model)
    why = next(one.why for one in found if one.what == "numerics=fast")
    assert why.endswith("LSTM fused: layer 'a'; LSTM as in Keras: layer 'b'"), why
