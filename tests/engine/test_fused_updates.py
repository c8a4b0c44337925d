"""Updates with fewer operations: the same formula as Keras's, and nothing around it is lost."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.engine.fused_updates import Update, updates_by

OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "nesterov": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01),
    "rmsprop_momentum": lambda: keras.optimizers.RMSprop(0.01, momentum=0.5),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "clipped": lambda: keras.optimizers.Adam(0.01, clipnorm=0.1),
    "averaged": lambda: keras.optimizers.SGD(0.1, use_ema=True),
    "scheduled": lambda: keras.optimizers.RMSprop(
        keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    ),
    # No single operation has their formulas: Keras's update stays.
    "centered": lambda: keras.optimizers.RMSprop(0.01, centered=True),
    "amsgrad": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    "adagrad": lambda: keras.optimizers.Adagrad(0.1),
}


def run(make_optimizer, update, *, num_steps=5):
    """Returns all variables after some steps, and the types of the operations of a step."""
    optimizer = make_optimizer()
    variables = [keras.Variable([1.0, -2.0, 3.0]), keras.Variable([[0.5]])]
    optimizer.build(variables)

    @tf.function(autograph=False)
    def step(factor):
        with updates_by([optimizer], update):
            gradients = [factor * tf.constant([0.3, -0.1, 0.2]), factor * tf.constant([[1.5]])]
            optimizer.apply_gradients(zip(gradients, variables, strict=True))

    for index in range(num_steps):
        step(tf.constant(1.0 + index))
    types = {
        node.type for node in step.get_concrete_function(tf.constant(1.0)).graph.get_operations()
    }
    return [v.numpy() for v in (*variables, *optimizer.variables)], types


# XLA compiles whatever the formula is: three of them are enough, and each takes seconds.
@pytest.mark.parametrize(
    ("name", "update"),
    [(name, Update.FUSED) for name in OPTIMIZERS]
    + [(name, Update.XLA) for name in ("momentum", "rmsprop", "adamw")],
)
def test_the_formula_is_that_of_keras(name, update):
    expected, _ = run(OPTIMIZERS[name], Update.KERAS)
    found, _ = run(OPTIMIZERS[name], update)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert not np.allclose(found[0], [1.0, -2.0, 3.0])


def test_an_optimizer_may_accumulate_gradients_itself():
    make = lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2)  # noqa: E731
    expected, found = run(make, Update.KERAS)[0], run(make, Update.FUSED)[0]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert not np.allclose(found[0], [1.0, -2.0, 3.0])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_single_operations_are_used_where_there_is_one(name):
    _, types = run(OPTIMIZERS[name], Update.FUSED)
    is_fused = any(t.startswith("ResourceApply") for t in types)
    assert is_fused == (name not in ("centered", "amsgrad", "adagrad"))


def test_the_optimizer_is_left_as_it_was():
    optimizer = keras.optimizers.SGD(0.1)
    before = optimizer.update_step
    with pytest.raises(RuntimeError, match="planted"), updates_by([optimizer], Update.FUSED):
        assert optimizer.update_step != before
        raise RuntimeError("planted")
    assert optimizer.update_step == before


def test_a_loss_scale_is_taken_out_before_the_update():
    inner = keras.optimizers.SGD(0.5)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0)
    variable = keras.Variable([1.0])
    optimizer.build([variable])

    @tf.function(autograph=False)
    def step():
        with updates_by([optimizer], Update.FUSED):
            optimizer.apply_gradients([(tf.constant([8.0]), variable)])

    step()
    assert variable.numpy() == [0.5]


def test_sparse_gradients_keep_keras_update():
    optimizer = keras.optimizers.Adam(0.1)
    table = keras.Variable(np.ones((4, 2), "float32"))
    optimizer.build([table])

    @tf.function(autograph=False)
    def step():
        with updates_by([optimizer], Update.FUSED):
            rows = tf.IndexedSlices(tf.ones([1, 2]), tf.constant([2]), tf.constant([4, 2]))
            optimizer.apply_gradients([(rows, table)])

    step()
    assert table.numpy()[2, 0] < 1.0
    assert table.numpy()[0, 0] == 1.0
