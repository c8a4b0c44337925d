"""The order of the examples: another one in each epoch, or that of a seeded fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.datasets import N, batches, make, order


@given(n=st.integers(1, 200), batch=st.integers(1, 250), seed=st.integers(-(2**40), 2**40))
@settings(max_examples=10, deadline=None)
def test_every_epoch_is_a_permutation(n, batch, seed):
    dataset = make(np.arange(n), global_batch_size=batch, shuffle=True, seed=seed)
    for _ in range(2):
        assert sorted(order(dataset)) == list(range(n))


def test_without_shuffle_it_is_the_arrays_order():
    dataset = make()
    assert order(dataset) == order(dataset) == list(range(N))


def test_each_iterator_is_another_epoch_and_the_seed_decides_all():
    one, same, other = make(shuffle=True), make(shuffle=True), make(shuffle=True, seed=1)
    first, second = order(one), order(one)
    assert first != second
    assert (order(same), order(same)) == (first, second)
    assert order(other) not in (first, second)


def test_the_order_mixes_near_and_far():
    n = 60_000
    got = np.array(order(make(np.arange(n), global_batch_size=4096, shuffle=True)))
    for lag in (1, 2, 4, 64, 256):
        assert abs(np.corrcoef(got[:-lag], got[lag:])[0, 1]) < 5 / np.sqrt(n)
    # As many of each half in every block as chance has it: a variance of 128 / 4.
    halves = (got[: n // 128 * 128].reshape(-1, 128) < n // 2).sum(1)
    assert 24 < halves.var() < 41


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
