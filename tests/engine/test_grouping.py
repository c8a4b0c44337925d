"""Steps that take an iterator: several batches a step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.data import pipeline
from tests.engine.nets import mirrored, num_updates


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(44, 3)).astype("float32"), rng.normal(size=(44, 1)).astype("float32")


def make_state(num_replicas=1):
    strategy = mirrored(num_replicas) if num_replicas > 1 else tf.distribute.get_strategy()
    with strategy.scope():
        keras.utils.set_random_seed(1)
        layers = [keras.Input((3,)), keras.layers.Dense(4, "tanh", name="a")]
        model = keras.Sequential([*layers, keras.layers.Dense(1, name="b")], name="net")
        return engine.TrainState(model, keras.optimizers.SGD(0.1, name="sgd"), loss="mse")


def three_batches(state, iterator):
    batches = [next(iterator) for _ in range(3)]
    x, y = (tf.concat(parts, axis=0) for parts in zip(*batches, strict=True))
    state.minimize(lambda: state.mean((y - state.model(x)) ** 2))
    return {"sum": tf.reduce_sum(x)}


def weights(state):
    return [variable.numpy() for variable in state.model.variables]


@pytest.mark.parametrize("run_eagerly", [False, True], ids=["graph", "eager"])
@pytest.mark.parametrize("form", ["resident", "streamed", "unknown length"])
@pytest.mark.parametrize("num_replicas", [1, 2])
def test_a_step_of_three_batches(data, num_replicas, form, run_eagerly):
    # 11 batches of 4: three steps an epoch; the two batches that are left are dropped.
    dataset = pipeline.make_dataset(*data, global_batch_size=4)
    if form == "unknown length":
        dataset = tf.data.Dataset.from_tensor_slices(data).batch(4).filter(lambda x, y: True)
    fields = {"input": "streamed"} if form == "streamed" else {}
    config = engine.TrainConfig(epochs=2, run_eagerly=run_eagerly, **fields)
    state = make_state(num_replicas)
    history = engine.fit(state, dataset, config, train_step=three_batches)
    assert history.epoch_steps == [3, 3]
    assert num_updates(state) == 6
    whole = make_state(num_replicas)
    x, y = data[0][:36], data[1][:36]
    twelve = tf.data.Dataset.from_tensor_slices((x, y)).batch(12)
    engine.fit(whole, twelve, engine.TrainConfig(epochs=2))
    for found, wanted in zip(weights(state), weights(whole), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    sums = [part.sum() / num_replicas for part in np.split(x, 3)]
    np.testing.assert_allclose(history.history["sum"], [np.mean(sums)] * 2, rtol=1e-4)


def test_a_run_goes_on_at_its_step(data, tmp_path):
    class Stop(engine.Hook):
        def on_save_point(self, info):
            engine.save_checkpoint(tmp_path, info.state)
            info.request_stop("enough", immediately=True)

    dataset = pipeline.make_dataset(*data, global_batch_size=4, shuffle=True)
    config = engine.TrainConfig(epochs=2, steps_per_execution=2)
    whole, state = make_state(), make_state()
    history = engine.fit(whole, dataset, config, train_step=three_batches)
    engine.fit(make_state(), dataset, config, hooks=[Stop()], train_step=three_batches)
    state.build(dataset.element_spec)
    engine.restore_checkpoint(tmp_path, state)
    resumed = engine.fit(state, dataset, config, train_step=three_batches, resume=True)
    assert resumed.history == history.history
    for found, wanted in zip(weights(state), weights(whole), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_an_evaluation_takes_several_batches_too(data):
    def eval_step(state, iterator):
        (x, _), (z, _) = next(iterator), next(iterator)
        return {"both": tf.reduce_sum(x) + tf.reduce_sum(z)}

    dataset = tf.data.Dataset.from_tensor_slices(data).batch(11)
    logs = engine.evaluate(make_state(), dataset, engine.TrainConfig(), eval_step=eval_step)
    np.testing.assert_allclose(logs["both"], data[0].sum() / 2, rtol=1e-4)


def test_a_step_that_takes_no_batch_is_refused(data):
    def step(state, iterator):
        return {}

    with pytest.raises(ValueError, match="takes an iterator"):
        engine.fit(make_state(), data[0], engine.TrainConfig(), y=data[1], train_step=step)
