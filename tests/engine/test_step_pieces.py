"""What a custom step is made of: minimize, mean, when=, seed, extras of any structure."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.data import pipeline
from tests.engine.nets import mirrored, num_updates

REPLICAS = pytest.mark.parametrize("num_replicas", [1, 2])


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(24, 3)).astype("float32"), rng.normal(size=(24, 1)).astype("float32")


def batches(data, size=4):
    return tf.data.Dataset.from_tensor_slices(data).batch(size)


def make_state(num_replicas=1, optimizer=None, **arguments):
    strategy = mirrored(num_replicas) if num_replicas > 1 else tf.distribute.get_strategy()
    with strategy.scope():
        keras.utils.set_random_seed(1)
        layers = [keras.Input((3,)), keras.layers.Dense(4, "tanh", name="a")]
        model = keras.Sequential([*layers, keras.layers.Dense(1, name="b")], name="net")
        optimizer = optimizer() if optimizer else keras.optimizers.Adam(0.1, name="adam")
        return engine.TrainState(model, optimizer, loss="mse", **arguments)


def values(state):
    return {name: v.numpy() for name, v in state.named_variables() if "metrics" not in name}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name], err_msg=name)


def fit(state, data, step, **fields):
    return engine.fit(state, batches(data), engine.TrainConfig(**fields), train_step=step)


@REPLICAS
def test_minimize_is_what_the_default_step_does(data, num_replicas):
    def step(state, batch):
        x, y = batch

        def loss_fn():
            y_pred = state.call_model(x, training=True)
            return state.compute_loss(x, y, y_pred), y_pred

        loss, y_pred = state.minimize(loss_fn)
        return state.update_metrics(loss, x, y, y_pred)

    keras.config.set_dtype_policy("mixed_float16")
    expected, state = make_state(num_replicas), make_state(num_replicas)
    wanted = fit(expected, data, engine.train_step)
    found = fit(state, data, step)
    assert found.history == wanted.history
    assert_equal(values(state), values(expected))


@REPLICAS
def test_a_mean_over_the_batch_is_one_over_the_replicas(data, num_replicas):
    def step(state, batch):
        x, y = batch
        errors = (y - state.model(x)) ** 2
        state.minimize(lambda: state.mean((y - state.model(x)) ** 2))
        return {"error": tf.reduce_mean(errors)}

    expected, state = make_state(num_replicas), make_state(num_replicas)
    wanted = fit(expected, data, engine.train_step)
    found = fit(state, data, step)
    np.testing.assert_allclose(found.history["error"], wanted.history["loss"], rtol=1e-5)
    for name, value in values(state).items():
        np.testing.assert_allclose(value, values(expected)[name], atol=1e-5)


def sgd_ema():
    return keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, name="sgd")


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("run_eagerly", [False, True], ids=["graph", "eager"])
@REPLICAS
def test_an_update_is_made_where_it_is_wanted(data, num_replicas, policy, run_eagerly):
    def step(state, batch, when=None):
        x, y = batch
        state.minimize(lambda: state.compute_loss(x, y, state.model(x)), when=when)

    def where(condition):
        return lambda state, batch: step(state, batch, condition(state))

    keras.config.set_dtype_policy(policy)
    fields = {"run_eagerly": run_eagerly}
    always, never, plain = (make_state(num_replicas, sgd_ema) for _ in range(3))
    never.build(batches(data).element_spec)
    before = values(never)
    fit(never, data, where(lambda state: tf.constant(False)), **fields)
    assert_equal(values(never), before)  # no moving average of nothing in place of the weights
    fit(always, data, where(lambda state: True), **fields)
    fit(plain, data, step, **fields)
    assert_equal(values(always), values(plain))
    assert not np.array_equal(values(always)["model/net/a/kernel"], before["model/net/a/kernel"])


@REPLICAS
def test_every_second_batch_updates(data, num_replicas):
    def step(state, batch):
        count, (x, y) = state.extras["count"], batch
        is_even = tf.equal(count.value % 2, 0)
        state.minimize(lambda: state.compute_loss(x, y, state.model(x)), when=is_even)
        count.assign(count + 1)

    with make_state(num_replicas).strategy.scope():
        count = keras.Variable(0, trainable=False, dtype="int32", aggregation="only_first_replica")
    state = make_state(num_replicas, extras={"count": count})
    fit(state, data, step)
    evens = [data[0].reshape(6, 4, 3)[::2].reshape(-1, 3), data[1].reshape(6, 4, 1)[::2]]
    expected = make_state(num_replicas)
    fit(expected, (evens[0], evens[1].reshape(-1, 1)), engine.train_step)
    assert num_updates(state) == 3
    for name, value in values(expected).items():
        np.testing.assert_array_equal(values(state)[name], value, err_msg=name)


def test_replicas_that_disagree_do_not_update(data):
    def step(state, batch):
        x, _ = batch
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        loss = state.minimize(lambda: state.mean(state.model(x)), when=tf.equal(index, 0))
        return {"loss": loss}

    state = make_state(2)
    state.build(batches(data).element_spec)
    before = values(state)
    fit(state, data, step)
    assert_equal(values(state), before)


def test_sparse_gradients_can_be_left_out_too():
    with mirrored().scope():
        model = keras.Sequential([keras.layers.Embedding(5, 1), keras.layers.Flatten()])
        state = engine.TrainState(model, keras.optimizers.SGD(0.1))
    x = np.array([[0, 1], [2, 2], [3, 4], [1, 1]])

    def step(state, batch):
        is_first = tf.reduce_any(tf.equal(batch, 3))
        state.minimize(lambda: state.mean(state.model(batch)), when=is_first)

    state.build(tf.data.Dataset.from_tensor_slices(x).batch(2).element_spec)
    before = model.layers[0].embeddings.numpy()
    engine.fit(
        state, tf.data.Dataset.from_tensor_slices(x).batch(2), engine.TrainConfig(), train_step=step
    )
    # No batch has a 3 in both halves.
    np.testing.assert_array_equal(model.layers[0].embeddings.numpy(), before)


@pytest.mark.parametrize("run_in", ["cond", "loop"])
def test_an_update_in_a_cond_of_one_replica_names_the_fix(data, run_in):
    def step(state, batch):
        x, y = batch

        def update():
            state.minimize(lambda: state.compute_loss(x, y, state.model(x)))
            return tf.constant(0)

        if run_in == "cond":
            tf.cond(tf.reduce_sum(x) > 0, update, lambda: tf.constant(0))
        else:
            tf.while_loop(lambda i: i < 2, lambda i: i + 1 + update(), [tf.constant(0)])

    with pytest.raises(ValueError, match=r"inside tf\.cond or a loop.*when=condition"):
        fit(make_state(2), data, step)


# Python on tensors.


def python_if(state, batch):
    x, y = batch
    if tf.reduce_sum(x) > 0:
        x = -x
    return engine.train_step(state, (x, y))


def python_for(state, batch):
    for _ in batch[0]:
        pass


@pytest.mark.parametrize("step", [python_if, python_for])
@REPLICAS
def test_python_on_the_value_of_a_tensor_names_what_to_write(data, step, num_replicas):
    with pytest.raises(ValueError, match=rf"{step.__name__} uses the value.*tf\.cond for if"):
        fit(make_state(num_replicas), data, step)


def test_it_works_where_steps_run_in_python_and_where_they_are_converted(data):
    converted = tf.autograph.to_graph(python_if)
    wanted = fit(make_state(), data, python_if, run_eagerly=True)
    found = fit(make_state(), data, converted)
    np.testing.assert_allclose(found.history["loss"], wanted.history["loss"], rtol=1e-5)


def linear(y_true, y_pred):
    return tf.reduce_mean(tf.reduce_sum(y_true) * y_pred, axis=-1)


def critic_step(state, batch):
    x, _ = batch
    state.minimize(lambda: state.mean(state.model(x)) * tf.reduce_sum(x))


@pytest.mark.parametrize("step", [engine.train_step, critic_step])
def test_weights_are_read_before_they_are_written(data, step):
    # The gradient of a linear loss does not wait for the outputs, and nothing else makes the
    # backward pass read a weight before it is updated: in one of three runs, it did not.
    def train(**fields):
        with tf.distribute.get_strategy().scope():
            keras.utils.set_random_seed(1)
            layers = [keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)]
            state = engine.TrainState(
                keras.Sequential(layers), keras.optimizers.Adam(0.1), loss=linear
            )
        dataset = pipeline.make_dataset(*data, global_batch_size=4)
        engine.fit(state, dataset, engine.TrainConfig(epochs=2, **fields), train_step=step)
        return [variable.numpy() for variable in state.model.variables]

    expected = train(run_eagerly=True)
    for _ in range(8):
        for found, wanted in zip(train(steps_per_execution=1), expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-4)
