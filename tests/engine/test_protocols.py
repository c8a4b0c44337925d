"""What a dataset may offer beyond tf.data: the pipeline has all of it, and so may anyone's."""

import numpy as np
import pytest
import tensorflow as tf

from gradloop.engine.loop import fit
from gradloop.engine.protocols import GraphBatches, HasBatchSize, Resident, Seekable
from tests.engine.against_fit import assert_same_weights
from tests.engine.nets import (
    BATCH_SIZE,
    NUM_BATCHES,
    NUM_EXAMPLES,
    make_config,
    make_pipeline,
    make_tiny,
)
from tests.engine.observers import StopAfter

on_cpu = pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="the graph makes batches on a CPU alone"
)


@pytest.mark.parametrize("protocol", [Seekable, HasBatchSize, Resident])
def test_the_pipeline_s_dataset_offers_all_and_a_plain_one_nothing(arrays, dataset, protocol):
    pipeline_ds = make_pipeline(arrays)
    assert isinstance(pipeline_ds, protocol)
    assert not isinstance(dataset, protocol)
    assert not isinstance(pipeline_ds.map(lambda x, y: (x, y)), protocol)  # a plain one again


def test_the_pipeline_s_batches_are_made_in_the_graph(arrays, dataset):
    batches = make_pipeline(arrays).resident
    assert isinstance(batches, GraphBatches)
    assert batches.num_batches == NUM_BATCHES
    assert batches.element_spec == dataset.element_spec
    assert not isinstance(iter(dataset), GraphBatches)


def members(protocol):
    names = {name for name in vars(protocol) if not name.startswith("_")}
    return sorted(names | set(protocol.__annotations__))


@pytest.mark.parametrize("options", [{}, {"drop_remainder": True}])
def test_stacks_of_the_pipeline(arrays, options):
    stacks = make_pipeline(arrays, **options).resident.stacks
    assert stacks.num_full_batches == NUM_EXAMPLES // BATCH_SIZE
    x, y = (a[:BATCH_SIZE] for a in arrays[:2])
    assert stacks.batch_bytes == x.nbytes + y.nbytes
    assert make_pipeline(arrays, augment=lambda x, seed: x).resident.stacks is None


def test_an_object_that_lacks_a_member_does_not_offer_it(arrays):
    batches = make_pipeline(arrays).resident

    class Partial:
        pass

    for missing in members(GraphBatches):
        partial = Partial()
        for name in members(GraphBatches):
            if name != missing:
                setattr(partial, name, getattr(batches, name))
        assert not isinstance(partial, GraphBatches), missing
        setattr(partial, missing, getattr(batches, missing))
        assert isinstance(partial, GraphBatches)


@on_cpu
def test_graph_makes_the_dataset_s_batches_bit_for_bit(arrays):
    dataset = make_pipeline(arrays)
    batches = dataset.resident
    for epoch, step in ((0, 0), (1, 0), (3, 5)):
        dataset.seek(epoch, step)
        batches.seek(epoch, step)
        get = batches.reader()
        assert int(batches.current_step()) == step
        for index, (x, y) in enumerate(dataset.take(NUM_BATCHES - step), start=step):
            found_x, found_y = get(tf.constant(index, tf.int64))
            np.testing.assert_array_equal(found_x, x)
            np.testing.assert_array_equal(found_y, y)
        batches.advance(tf.constant(2))
        assert int(batches.current_step()) == step + 2


@on_cpu
def test_stack_holds_the_batches_that_the_reader_gives(arrays):
    batches = make_pipeline(arrays).resident
    batches.seek(2)
    stack = batches.get_stack(tf.constant(1, tf.int64), 3)
    for index in range(3):
        raw = tf.nest.map_structure(lambda t, index=index: t[index], stack)
        found, expected = (
            batches.stacks.finish(raw),
            batches.reader()(tf.constant(1 + index, tf.int64)),
        )
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


# Anyone's own.


class Own:
    """Batches of zeros to six, each with the label 0."""

    num_batches = NUM_BATCHES
    stacks = None
    element_spec = (tf.TensorSpec((2, 4)), tf.TensorSpec((2,), tf.int64))

    def __init__(self):
        self.step = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.seeks = []

    def seek(self, epoch, step=0):
        self.seeks.append((epoch, step))
        self.step.assign(step)

    def reader(self):
        return self.make_batch

    @staticmethod
    def make_batch(step):
        return tf.fill((2, 4), tf.cast(step, tf.float32)), tf.zeros((2,), tf.int64)

    def current_step(self):
        return self.step.read_value()

    def get_stack(self, step, number):
        raise NotImplementedError("stacks is None")

    def advance(self, num_steps):
        self.step.assign_add(tf.cast(num_steps, tf.int64))


def own_dataset(**offers):
    dataset = tf.data.Dataset.range(NUM_BATCHES).map(Own.make_batch)
    for name, value in offers.items():
        setattr(dataset, name, value)
    return dataset


@on_cpu
def test_own_batches_in_the_graph_train_as_those_of_tf_data():
    own, state, expected = Own(), make_tiny(), make_tiny()
    fit(state, own_dataset(resident=own), make_config(epochs=2))
    assert own.seeks == [(0, 0), (1, 0)]
    fit(expected, own_dataset(), make_config(epochs=2))
    assert_same_weights(state.model, expected.model)


def test_a_run_resumes_on_any_dataset_that_can_seek():
    whole, state, seeks = make_tiny(), make_tiny(), []
    fit(whole, own_dataset(), make_config())

    start = tf.Variable(0, dtype=tf.int64, trainable=False)
    seekable = tf.data.Dataset.range(NUM_BATCHES).map(lambda i: Own.make_batch((i + start) % 7))

    def seek(epoch, step=0):
        seeks.append((epoch, step))
        start.assign(step)

    seekable.seek = seek
    assert isinstance(seekable, Seekable)
    fit(state, seekable, make_config(), hooks=[StopAfter(4)])
    fit(state, seekable, make_config(), resume=True)
    assert seeks == [(0, 0), (0, 4)]
    assert_same_weights(state.model, whole.model)
