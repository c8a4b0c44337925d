"""The batches that a graph makes are those of tf.data, and offer what the engine asks for."""

import inspect

import numpy as np
import pytest
import tensorflow as tf

from gradloop.data import pipeline
from gradloop.engine import protocols
from tests.data.datasets import N, images, make


@pytest.mark.parametrize("order", pipeline.ORDERS)
def test_resident_batches_are_those_of_the_dataset_in_all_bits(order):
    x = np.random.default_rng(0).integers(0, 256, (23, 5, 4), dtype=np.uint8)
    y = np.arange(23) % 3
    weight = np.linspace(0, 1, 23, dtype="float32")

    def augment(batch, seed):
        return batch + tf.random.stateless_uniform(tf.shape(batch), seed)

    dataset = pipeline.make_dataset(
        x,
        y,
        global_batch_size=4,
        num_classes=3,
        shuffle=True,
        order=order,
        sample_weight=weight,
        augment=augment,
    )
    dataset.seek(1)
    expected = list(dataset)

    @tf.function
    def batch_at(step):
        return dataset.resident.reader()(step)

    for start in (0, 3):
        dataset.resident.seek(1, start)
        for step in range(start, 6):
            actual = batch_at(tf.constant(step, tf.int64))
            for a, b in zip(actual, expected[step], strict=True):
                np.testing.assert_array_equal(a.numpy(), b.numpy())
    dataset.resident.seek(1, 3)
    dataset.resident.advance(tf.constant(2))
    assert int(dataset.resident.current_step()) == 5
    # Beyond the end it begins anew: the loop prepares a batch that nobody takes.
    begins_anew = batch_at(tf.constant(dataset.resident.num_batches, tf.int64))
    np.testing.assert_array_equal(begins_anew[0].numpy(), expected[0][0].numpy())


def test_stacks_are_the_full_batches_and_finish_like_them():
    x, y = images(), np.arange(N) % 3
    dataset = make(x, y, num_classes=3, shuffle=True)
    dataset.seek(2)
    expected = list(dataset)
    resident = dataset.resident
    assert resident.stacks.num_full_batches == 4
    assert resident.stacks.batch_bytes == 16 * (28 * 28 + 4)  # uint8 pixels, int32 labels
    resident.seek(2)
    stack = resident.get_stack(tf.constant(1, tf.int64), 3)
    for index in range(3):
        one = tf.nest.map_structure(lambda t, index=index: t[index], stack)
        for a, b in zip(resident.stacks.finish(one), expected[1 + index], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("options", [{"augment": lambda x, seed: x}, {"global_batch_size": N + 1}])
def test_there_are_no_stacks_with_augmentation_or_without_a_full_batch(options):
    assert make(**options).resident.stacks is None


@pytest.mark.parametrize(
    ("protocol", "get"),
    [
        (protocols.Seekable, lambda dataset: dataset),
        (protocols.HasBatchSize, lambda dataset: dataset),
        (protocols.Resident, lambda dataset: dataset),
        (protocols.GraphBatches, lambda dataset: dataset.resident),
        (protocols.BatchStacks, lambda dataset: dataset.resident.stacks),
    ],
)
def test_the_dataset_offers_the_protocols_of_the_engine(protocol, get):
    offered = get(make())
    members = {**protocol.__annotations__, **vars(protocol)}
    names = {name for name in members if not name.startswith("_")}
    methods = {name for name in names if inspect.isfunction(members[name])}
    assert names
    for name in names:
        assert hasattr(offered, name), name
    # `isinstance` looks at names alone; a call needs the same parameters. `finish` is a function
    # in an attribute, and is called by position.
    for name in methods - {"finish"}:
        own = inspect.signature(getattr(offered, name)).parameters
        asked = list(inspect.signature(vars(protocol)[name]).parameters)[1:]
        assert list(own) == asked, name


def test_num_batches_and_element_spec_are_those_of_the_dataset():
    dataset = make(images(), np.arange(N), num_classes=N)
    assert dataset.resident.num_batches == len(dataset)
    assert dataset.resident.element_spec == dataset.element_spec
