"""SAM, the step of docs/custom_steps/supervised.md, against its formula."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import gallery
from gradloop import engine
from tests.gallery.sections import make_strategy

SLOW = pytest.mark.slow
X = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5], [-1.0, 1.0]], "float32")
Y = np.array([[1.0], [0.0], [-2.0], [0.3]], "float32")


def sam_by_hand(w, parts, *, rho, learning_rate):
    """Foret et al. 2021, in NumPy, for a least-squares loss; one part a replica."""

    def gradient(w, x, y):
        return 2 * x.T @ (x @ w - y) / len(x)

    climbed = [w + rho * g / np.linalg.norm(g) for g in (gradient(w, x, y) for x, y in parts)]
    mean = np.mean([gradient(v, x, y) for v, (x, y) in zip(climbed, parts, strict=True)], axis=0)
    return w - learning_rate * mean


def one_sam_step(x=X, num_replicas=1, optimizer=None):
    step = gallery.define("SAM")
    strategy = make_strategy(num_replicas)
    with strategy.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        state = engine.TrainState(model, optimizer or keras.optimizers.SGD(0.1), loss="mse")
    before = model.layers[0].kernel.numpy()
    data = tf.data.Dataset.from_tensor_slices((x, Y)).batch(4)
    config = engine.TrainConfig()
    history = engine.fit(state, data, config, train_step=step["train_step"])
    return state, before, history, step["RHO"]


@pytest.mark.parametrize(
    ("num_replicas", "has_loss_scale"),
    [(1, False), (2, True), *(pytest.param(*p, marks=SLOW) for p in ((1, True), (2, False)))],
)
def test_sam_equals_the_formula(num_replicas, has_loss_scale):
    optimizer = keras.optimizers.SGD(0.1)
    if has_loss_scale:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1024.0)
    state, before, history, rho = one_sam_step(num_replicas=num_replicas, optimizer=optimizer)
    parts = list(zip(np.split(X, num_replicas), np.split(Y, num_replicas), strict=True))
    w = before.astype("float64")
    expected = sam_by_hand(w, parts, rho=rho, learning_rate=0.1)
    without_ascent = sam_by_hand(w, parts, rho=0.0, learning_rate=0.1)
    result = state.model.layers[0].kernel.numpy()
    np.testing.assert_allclose(result, expected, rtol=2e-5)
    assert np.abs(result - without_ascent).max() > 1e-3  # the ascent is in the result
    # The logged loss is that of the weights before the ascent.
    np.testing.assert_allclose(history.history["loss"], [np.mean((X @ w - Y) ** 2)], rtol=1e-5)


def test_sam_leaves_the_weights_of_a_skipped_step_as_they_were():
    keras.config.set_dtype_policy("mixed_float16")
    x = X.copy()
    x[3] = 1e30  # inf in float16, on the second replica alone
    state, before, _, _ = one_sam_step(x, num_replicas=2)
    kernel = state.model.layers[0].kernel
    for value in state.strategy.experimental_local_results(kernel.value):
        np.testing.assert_array_equal(value.numpy(), before)
    assert float(state.optimizer.dynamic_scale.numpy()) == 2.0**14
