"""Gradients of narrow weights in XLA: the same sums by another product."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.engine import narrow_products

NARROW = (16, 200), (200, 10)
BARRIER = "XlaOptimizationBarrier"


def operations_of_gradient(x_shape, w_shape, dtype="float32"):
    """Returns the types of the operations of a layer's gradients."""

    @tf.function(
        input_signature=[tf.TensorSpec(x_shape, dtype), tf.TensorSpec(w_shape, dtype)],
        autograph=False,
    )
    def compute(x, w):
        with narrow_products.narrow_products(is_on=True), tf.GradientTape() as tape:
            tape.watch(w)
            return tape.gradient(tf.reduce_sum(tf.matmul(x, w) ** 2), w)

    return {operation.type for operation in compute.get_concrete_function().graph.get_operations()}


@pytest.mark.parametrize("x_shape", [(16, 200), (None, 200)], ids=["static", "unknown-batch"])
def test_a_narrow_gradient_is_the_other_product(x_shape):
    assert BARRIER in operations_of_gradient(x_shape, (200, 10))


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "dtype"),
    [
        ((16, None), (None, 10), "float32"),
        ((16, 200), (200, 33), "float32"),
        ((16, 127), (127, 10), "float32"),
        ((16, 200), (200, 1), "float32"),
        ((16, 200), (200, 10), "bfloat16"),
    ],
    ids=["unknown-inputs", "wide", "few-inputs", "vector", "bfloat16"],
)
def test_other_gradients_stay(x_shape, w_shape, dtype):
    assert BARRIER not in operations_of_gradient(x_shape, w_shape, dtype)


def test_gradients_and_their_gradients_are_those_of_tensorflow():
    rng = np.random.default_rng(0)
    x, w = (tf.constant(rng.normal(size=shape), tf.float32) for shape in NARROW)

    def compute(x, w, *, is_on):
        with narrow_products.narrow_products(is_on=is_on), tf.GradientTape() as outer:
            outer.watch([x, w])
            with tf.GradientTape() as inner:
                inner.watch(w)
                loss = tf.reduce_sum(tf.tanh(tf.matmul(x, w)))
            gradient = inner.gradient(loss, w)
            norm = tf.reduce_sum(gradient**2)
            return gradient, *outer.gradient(norm, [x, w])

    compiled = tf.function(compute, autograph=False, jit_compile=True)
    for found, expected in zip(
        compiled(x, w, is_on=True), compiled(x, w, is_on=False), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def train(**fields):
    """Returns the weights after some steps, and the types of the operations that were traced."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(200, "relu"), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((40,)), *layers])
    model.compile("rmsprop", "sparse_categorical_crossentropy")
    x = np.random.default_rng(0).normal(size=(70, 40)).astype("float32")
    dataset = tf.data.Dataset.from_tensor_slices((x, x[:, :10].argmax(1))).batch(16)
    kinds = set()

    def noting_step(state, batch):
        logs = engine.train_step(state, batch)
        kinds.update(op.type for op in tf.compat.v1.get_default_graph().get_operations())
        return logs

    config = engine.TrainConfig(epochs=2, **fields)
    engine.fit(engine.TrainState(model), dataset, config, train_step=noting_step)
    return model.get_weights(), kinds


@pytest.mark.parametrize("asked", [{"narrow_products": True}, {"numerics": "fast"}])
def test_a_step_has_it_in_xla_where_it_is_asked_for(asked):
    expected, kinds = train(jit_compile=True)
    assert BARRIER not in kinds
    found, kinds = train(jit_compile=True, **asked)
    assert BARRIER in kinds
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_without_xla_no_step_has_it():
    assert BARRIER not in train(jit_compile=False, numerics="fast")[1]
