"""The pipeline starts at any step of any epoch, under strategies and in fit too."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.datasets import N, batches, make, order


@given(epoch=st.integers(0, 2**40), step=st.integers(0, 4))
@settings(max_examples=6, deadline=None)
def test_seek_goes_on_where_the_epoch_would_have(epoch, step):
    straight, resumed = make(shuffle=True), make(shuffle=True)
    straight.seek(epoch)
    whole, following = batches(straight), batches(straight)
    resumed.seek(epoch, step)
    rest = batches(resumed, 5 - step)
    assert [b.tolist() for b in rest] == [b.tolist() for b in whole[step:]]
    assert [b.tolist() for b in batches(resumed)] == [b.tolist() for b in following]


def test_after_seek_the_cardinality_stays_and_the_epoch_wraps_around():
    dataset = make()
    dataset.seek(0, 3)
    assert [b[0] for b in dataset.as_numpy_iterator()] == [48, 64, 0, 16, 32]
    assert [b[0] for b in dataset.as_numpy_iterator()] == [0, 16, 32, 48, 64]


def test_seek_equals_the_epochs_of_an_uninterrupted_run():
    run = make(shuffle=True)
    epochs = [order(run) for _ in range(3)]
    resumed = make(shuffle=True)
    resumed.seek(2)
    assert order(resumed) == epochs[2]


@pytest.mark.parametrize(("epoch", "step"), [(-1, 0), (0, -1), (0, 5)])
def test_seek_refuses_what_is_not_there(epoch, step):
    with pytest.raises(ValueError, match="expected 0"):
        make().seek(epoch, step)


def test_under_a_strategy_replicas_share_each_batch():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        dataset = make(shuffle=True)
    alone = make(shuffle=True)
    distributed = strategy.experimental_distribute_dataset(dataset)
    for _ in range(2):
        got = [
            np.concatenate([t.numpy() for t in strategy.experimental_local_results(b)])
            for b in distributed
        ]
        assert [b.tolist() for b in got] == [b.tolist() for b in batches(alone)]


class Recorder(keras.Model):
    """Its weights are the ids that it was trained on, in order."""

    def __init__(self, size):
        super().__init__()
        self.seen = self.add_weight(shape=(size,), initializer="zeros", trainable=False)
        self.count = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        ids = tf.cast(tf.reshape(x, [-1]), tf.float32)
        start = tf.convert_to_tensor(self.count.value)
        where = tf.range(start, start + tf.size(ids))[:, None]
        self.seen.assign(tf.tensor_scatter_nd_update(self.seen.value, where, ids))
        self.count.assign_add(tf.size(ids))
        return ids[:, None] * self.scale


def fit_order(*arguments, epochs, **options):
    model = Recorder(N * epochs)
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    model.fit(*arguments, epochs=epochs, verbose=0, **options)
    assert int(model.count) == N * epochs
    return model.seen.numpy().astype(int).reshape(epochs, N).tolist()


@pytest.mark.parametrize("seed", [0, 7])
def test_keras_order_is_what_fit_on_arrays_sees(seed):
    x = np.arange(N)
    keras.utils.set_random_seed(seed)
    seen = fit_order(x, x, epochs=3, batch_size=16, shuffle=True)
    dataset = make(order="keras", shuffle=True, seed=seed)
    assert [order(dataset) for _ in range(3)] == seen
    assert seen[0] != sorted(seen[0])


def test_keras_order_takes_the_seed_and_not_the_processes():
    keras.utils.set_random_seed(3)
    before = order(make(order="keras", shuffle=True, seed=0))
    after = tf.random.uniform([])
    keras.utils.set_random_seed(3)
    assert tf.random.uniform([]) == after  # Nothing was drawn from, or done to, the global state.
    assert order(make(order="keras", shuffle=True, seed=0)) == before
    assert order(make(order="keras", shuffle=True, seed=3)) != before


def test_keras_order_can_be_sought_too():
    dataset = make(order="keras", shuffle=True)
    whole = batches(dataset)
    dataset.seek(5, 3)
    assert [b.tolist() for b in batches(dataset, 2)] == [b.tolist() for b in whole[3:]]


def test_fit_takes_it_and_goes_through_the_epochs():
    # fit makes its own iterators: one batch to build the model, then one iterator an epoch.
    x = np.arange(N, dtype=np.float32)
    dataset = make(x, x, shuffle=True)
    seen = fit_order(dataset, epochs=2, shuffle=False)
    epochs = make(shuffle=True)
    expected = [order(epochs) for _ in range(4)]
    assert seen[0] in expected and seen[1] == expected[expected.index(seen[0]) + 1]
