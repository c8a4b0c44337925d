"""GradientNorm, and the period of LambdaHook."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from tests.engine.nets import mirrored


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(12, 3)).astype("float32"), rng.normal(size=(12, 1)).astype("float32")


def make_state(num_replicas=1, clipnorm=None):
    strategy = mirrored(num_replicas) if num_replicas > 1 else tf.distribute.get_strategy()
    with strategy.scope():
        keras.utils.set_random_seed(1)
        layers = [keras.Input((3,)), keras.layers.Dense(4, "tanh", name="a")]
        model = keras.Sequential([*layers, keras.layers.Dense(1, name="b", dtype="float32")])
        optimizer = keras.optimizers.SGD(0.0, clipnorm=clipnorm)
        return engine.TrainState(model, optimizer, loss="mse")


def norms_by_hand(state, data):
    """Of batches of four examples; the weights stand still."""
    result = []
    for start in range(0, 12, 4):
        x, y = (part[start : start + 4] for part in data)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((y - tf.cast(state.model(x), "float32")) ** 2)
        gradients = tape.gradient(loss, [v.value for v in state.model.trainable_variables])
        squares = [float(tf.reduce_sum(g**2)) for g in gradients]
        result.append([np.sqrt(sum(squares)), np.sqrt(sum(squares[:2])), np.sqrt(sum(squares[2:]))])
    return np.mean(result, axis=0)


@pytest.mark.parametrize("run_eagerly", [False, True], ids=["graph", "eager"])
@pytest.mark.parametrize("num_replicas", [1, 2])
def test_norms_are_of_the_global_batch_before_clipping(data, num_replicas, run_eagerly):
    state = make_state(num_replicas, clipnorm=0.01)
    expected = norms_by_hand(make_state(), data)
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(4)
    config = engine.TrainConfig(run_eagerly=run_eagerly)
    hook = engine.GradientNorm(per_layer=True)
    history = engine.fit(state, dataset, config, hooks=[hook]).history
    names = ["gradient_norm", *(k for k in sorted(history) if k.startswith("gradient_norm/"))]
    assert [name.rsplit("/", 1)[-1] for name in names] == ["gradient_norm", "a", "b"]
    np.testing.assert_allclose([history[name][0] for name in names], expected, rtol=1e-4)


def test_a_loss_scale_is_taken_out(data):
    expected = norms_by_hand(make_state(), data)
    keras.config.set_dtype_policy("mixed_float16")
    state = make_state()
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(4)
    history = engine.fit(
        state, dataset, engine.TrainConfig(), hooks=[engine.GradientNorm()]
    ).history
    np.testing.assert_allclose(history["gradient_norm"][0], expected[0], rtol=1e-2)


def test_a_later_run_without_the_hook_logs_none_and_says_why_it_traces(data):
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(4)
    state, config = make_state(), engine.TrainConfig()
    engine.fit(state, dataset, config)
    watched = engine.fit(state, dataset, config, hooks=[engine.GradientNorm()])
    assert "gradient norms" in watched.traces[0]["cause"]
    assert "gradient_norm" in watched.history
    later = engine.fit(state, dataset, config)
    assert list(later.history) == ["loss"]
    assert later.num_traces == 0


def test_a_step_that_hides_its_gradients_is_refused(data):
    def step(state, batch):
        state.optimizer.apply_gradients(
            [(tf.zeros_like(v), v) for v in state.model.trainable_variables]
        )

    dataset, hooks = tf.data.Dataset.from_tensor_slices(data).batch(4), [engine.GradientNorm()]
    with pytest.raises(ValueError, match="GradientNorm sees no gradients"):
        engine.fit(make_state(), dataset, engine.TrainConfig(), train_step=step, hooks=hooks)


def test_a_lambda_hook_may_have_a_period(data):
    ends = []
    hook = engine.LambdaHook(
        every_steps=2, on_execution_end=lambda info: ends.append(info.progress.num_steps_completed)
    )
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(2)
    engine.fit(make_state(), dataset, engine.TrainConfig(steps_per_execution=5), hooks=[hook])
    assert ends == [2, 4, 6]
    with pytest.raises(ValueError, match="every_steps"):
        engine.LambdaHook(every_steps=0)
