"""gradient_accumulation_steps: one update for the gradients of several batches."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.data import pipeline
from tests.engine.nets import mirrored, num_updates

SIZE = 4


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(44, 5)).astype("float32")
    return x, np.tanh(x @ rng.normal(size=(5, 1))).astype("float32")


def batches(data, size):
    return tf.data.Dataset.from_tensor_slices(data).batch(size)


def make_state(optimizer=None, *, num_replicas=1, build=None):
    strategy = mirrored(num_replicas) if num_replicas > 1 else tf.distribute.get_strategy()
    with strategy.scope():
        keras.utils.set_random_seed(1)
        layers = [
            keras.Input((5,)),
            keras.layers.Dense(8, "tanh", name="a"),
            keras.layers.Dense(1, name="b"),
        ]
        model = build() if build else keras.Sequential(layers, name="net")
        return engine.TrainState(model, optimizer() if optimizer else "sgd", loss="mse")


def train(state, dataset, **fields):
    return engine.fit(state, dataset, engine.TrainConfig(**{"epochs": 2} | fields))


def weights(state):
    return [variable.numpy() for variable in state.model.variables]


def adam(**arguments):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 1, 0.5)
    return keras.optimizers.Adam(schedule, use_ema=True, ema_momentum=0.5, name="adam", **arguments)


def clipped():
    return adam(clipnorm=0.4)


@pytest.mark.parametrize("run_eagerly", [False, True], ids=["graph", "eager"])
@pytest.mark.parametrize("num_replicas", [1, 2])
def test_an_update_is_that_of_the_larger_batch(data, num_replicas, run_eagerly):
    # 44 examples: 2 full windows of 16, and at the end of the epoch one of 12.
    # A Keras optimizer clips on each replica, which has other examples of the larger batch.
    optimizer = clipped if num_replicas == 1 else adam
    expected = make_state(optimizer, num_replicas=num_replicas)
    wanted = train(expected, batches(data, SIZE * 4))
    state = make_state(optimizer, num_replicas=num_replicas)
    before = weights(state)
    found = train(
        state, batches(data, SIZE), gradient_accumulation_steps=4, run_eagerly=run_eagerly
    )
    assert num_updates(state) == num_updates(expected) == 6
    for old, new, other in zip(before, weights(state), weights(expected), strict=True):
        assert np.abs(new - old).max() > 1e-3
        np.testing.assert_allclose(new, other, atol=1e-6)
    np.testing.assert_allclose(found.history["loss"], wanted.history["loss"], rtol=1e-5)
    assert found.learning_rate == wanted.learning_rate  # the schedule counts updates


@pytest.mark.parametrize("jit_scope", ["step", "loop", "update"])
def test_xla_accumulates_too(data, jit_scope):
    expected, state = make_state(adam), make_state(adam)
    train(expected, batches(data, SIZE * 4))
    dataset = pipeline.make_dataset(*data, global_batch_size=SIZE)
    train(state, dataset, gradient_accumulation_steps=4, jit_compile=True, jit_scope=jit_scope)
    for new, other in zip(weights(state), weights(expected), strict=True):
        np.testing.assert_allclose(new, other, atol=1e-5)


def test_a_window_ends_with_its_epoch_and_weighs_examples(data):
    # 6 examples in batches of 4 and 2: an update of 6 examples, not of two halves.
    x, y = data[0][:6], data[1][:6]
    expected, state = make_state(), make_state()
    train(expected, batches((x, y), 6), epochs=1)
    train(state, batches((x, y), 4), epochs=1, gradient_accumulation_steps=9)
    assert num_updates(state) == 1
    for new, other in zip(weights(state), weights(expected), strict=True):
        np.testing.assert_allclose(new, other, atol=1e-7)


def test_each_batch_of_a_step_weighs_its_examples(data):
    def step(state, iterator):
        for _ in range(2):
            x, y = next(iterator)
            state.minimize(lambda x=x, y=y: state.mean((y - state.model(x)) ** 2))

    x, y = data[0][:10], data[1][:10]
    expected, state = make_state(), make_state()
    train(expected, batches((x, y), 10), epochs=1)
    config = engine.TrainConfig(gradient_accumulation_steps=2)
    engine.fit(state, batches((x, y), 8), config, train_step=step)
    assert num_updates(state) == 1
    for new, other in zip(weights(state), weights(expected), strict=True):
        np.testing.assert_allclose(new, other, atol=1e-7)


def test_an_overflow_on_one_replica_skips_the_whole_window():
    keras.config.set_dtype_policy("mixed_float16")
    x = np.full((8, 5), 0.1, "float32")
    x[3] = 1e30  # in the first of two batches, on the second replica
    state = make_state(num_replicas=2)
    before = weights(state)
    dataset = batches((x, np.ones((8, 1), "float32")), 4)
    train(state, dataset, epochs=1, gradient_accumulation_steps=2)
    for old, new in zip(before, weights(state), strict=True):
        np.testing.assert_array_equal(old, new)
    assert float(state.optimizer.dynamic_scale.numpy()) == 2.0**14
    train(state, batches((x[4:], np.ones((4, 1), "float32")), 2), gradient_accumulation_steps=2)
    assert num_updates(state) == 2
    assert not np.array_equal(before[0], weights(state)[0])


def test_a_window_is_of_one_number_of_replicas(data, tmp_path):
    stop = engine.LambdaHook(on_execution_end=lambda info: info.request_stop("", immediately=True))
    config = engine.TrainConfig(gradient_accumulation_steps=2, steps_per_execution=1)
    state, dataset = make_state(num_replicas=2), batches(data, SIZE)
    engine.fit(state, dataset, config, hooks=[stop])
    path = engine.save_checkpoint(tmp_path, state)
    other = make_state()
    other.build(dataset.element_spec)
    with pytest.raises(engine.CheckpointError, match="gradients of 2 replicas that wait"):
        engine.restore_checkpoint(path, other)
    engine.restore_checkpoint(path, other, only="model")


def test_sparse_gradients_accumulate_under_replicas():
    def build():
        layers = [keras.Input((3,)), keras.layers.Embedding(7, 2), keras.layers.Flatten()]
        return keras.Sequential([*layers, keras.layers.Dense(1)])

    rng = np.random.default_rng(0)
    data = rng.integers(0, 7, (16, 3)), rng.normal(size=(16, 1)).astype("float32")
    expected, state = (make_state(num_replicas=2, build=build) for _ in range(2))
    train(expected, batches(data, 8))
    train(state, batches(data, 4), gradient_accumulation_steps=2)
    for new, other in zip(weights(state), weights(expected), strict=True):
        np.testing.assert_allclose(new, other, atol=1e-6)


@pytest.mark.parametrize("num_replicas", [1, 2])
@pytest.mark.parametrize("num_steps", [2, 11], ids=["within a window", "at the end of an epoch"])
def test_a_run_goes_on_within_a_window(data, tmp_path, num_replicas, num_steps):
    def make_dataset():
        return pipeline.make_dataset(*data, global_batch_size=SIZE, shuffle=True)

    class Stop(engine.Hook):
        every_steps = num_steps

        def on_save_point(self, info):
            if info.progress.num_steps_completed == num_steps:
                engine.save_checkpoint(tmp_path, info.state)
                info.request_stop("enough", immediately=True)

    fields = {"epochs": 2, "gradient_accumulation_steps": 4}
    config = engine.TrainConfig(**fields)
    whole = make_state(adam, num_replicas=num_replicas)
    history = engine.fit(whole, make_dataset(), config)
    engine.fit(make_state(adam, num_replicas=num_replicas), make_dataset(), config, hooks=[Stop()])
    state = make_state(adam, num_replicas=num_replicas)
    state.build(make_dataset().element_spec)
    engine.restore_checkpoint(tmp_path, state)
    resumed = engine.fit(state, make_dataset(), config, resume=True)
    names = [name for name, _ in whole.named_variables()]
    assert any(name.startswith("accumulated/optimizer/") for name in names)
    assert names == [name for name, _ in state.named_variables()]
    for (name, a), (_, b) in zip(whole.named_variables(), state.named_variables(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)
    assert resumed.history == history.history


def test_gradients_that_wait_are_not_forgotten(data):
    class Stop(engine.Hook):
        def on_execution_end(self, info):
            info.request_stop("enough", immediately=True)

    state = make_state()
    config = engine.TrainConfig(gradient_accumulation_steps=4, steps_per_execution=2)
    engine.fit(state, batches(data, SIZE), config, hooks=[Stop()])
    with pytest.raises(engine.ConfigError, match="gradients that wait for an update"):
        train(state, batches(data, SIZE))
    engine.evaluate(state, batches(data, SIZE), engine.TrainConfig())  # updates nothing
    state.step_variables.clear()
    train(state, batches(data, SIZE))


def own_step(state, batch):
    state.optimizer.apply_gradients([(tf.zeros_like(v), v) for v in state.model.trainable_weights])


def foreign_optimizer(state, batch):
    optimizer = keras.optimizers.SGD()
    optimizer.build(state.model.trainable_variables)
    state.minimize(lambda: state.mean(state.model(batch[0])), optimizer=optimizer)


def one_for_two_losses(state, batch):
    for layer in state.model.layers:
        state.minimize(lambda: state.mean(state.model(batch[0])), layer.trainable_variables)


def conditional(state, batch):
    state.minimize(lambda: state.mean(state.model(batch[0])), when=True)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (own_step, r"own_step does not call state\.apply_gradients"),
        (foreign_optimizer, r"updates with sgd.*, which the state does not have"),
        (one_for_two_losses, r"with sgd.* several times, each time other variables.*extras"),
        (conditional, r"gradient_accumulation_steps=2 with when="),
    ],
)
def test_what_cannot_wait_is_refused(data, step, message):
    config = engine.TrainConfig(gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match=message):
        engine.fit(make_state(), batches(data, SIZE), config, train_step=step)


def test_an_optimizer_that_accumulates_itself_is_refused(data):
    state = make_state(lambda: keras.optimizers.SGD(gradient_accumulation_steps=3))
    with pytest.raises(ValueError, match="sgd has its own"):
        train(state, batches(data, SIZE), gradient_accumulation_steps=2)
