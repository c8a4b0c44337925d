"""The parts that workers make are those into which one process splits the whole batches."""

import numpy as np
import pytest
import tensorflow as tf

from gradloop.data import pipeline


def make(n, batch_size, **options):
    x = np.arange(n * 3, dtype="float32").reshape(n, 3)
    return pipeline.make_dataset(
        x, np.arange(n), global_batch_size=batch_size, shuffle=True, seed=3, **options
    )


def batches_of(dataset):
    return [[part.tolist() for part in batch] for batch in dataset.as_numpy_iterator()]


@pytest.mark.parametrize(("n", "batch_size"), [(24, 8), (19, 8), (17, 8), (18, 9), (31, 15)])
@pytest.mark.parametrize(("num_workers", "num_local"), [(2, 1), (2, 2), (4, 1)])
def test_parts_are_those_of_mirrored(n, batch_size, num_workers, num_local):
    num_replicas = num_workers * num_local
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(num_replicas)])
    whole = make(n, batch_size)
    whole.seek(2)
    expected = [
        [[local.numpy().tolist() for local in strategy.experimental_local_results(part)]
         for part in batch]
        for batch in strategy.experimental_distribute_dataset(whole)
    ]  # fmt: skip
    for worker in range(num_workers):
        dataset = make(n, batch_size)
        dataset.seek(2)
        context = tf.distribute.InputContext(num_workers, worker, num_replicas)
        found = batches_of(dataset.slices(context))
        first = worker * num_local
        assert found == [
            [part[replica] for part in batch]
            for batch in expected
            for replica in range(first, first + num_local)
        ]


def test_parts_follow_seek_and_replace():
    dataset = make(24, 8)
    slices = dataset.slices(tf.distribute.InputContext(2, 1, 2))
    dataset.seek(1, 2)
    last = batches_of(make_at(1, 2))[0]
    assert batches_of(slices)[0] == [part[4:] for part in last]
    dataset.replace(np.zeros([24, 3], "float32"), np.arange(24))
    assert np.unique([batch[0] for batch in batches_of(slices)]).tolist() == [0]


def make_at(epoch, step):
    dataset = make(24, 8)
    dataset.seek(epoch, step)
    return dataset


def test_augmented_batches_are_made_whole():
    assert make(24, 8, augment=lambda x, seed: x).slices is None
