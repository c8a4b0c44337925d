"""A dataset starts at any step of any epoch, under a strategy too."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.datasets import batches, make, order


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
