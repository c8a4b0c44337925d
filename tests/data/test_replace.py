"""New arrays in place of the old ones: the same order, the next epoch, all of them at once."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.data.datasets import N, batches, images, make, order

ROOT = Path(__file__).parents[2]


def rows(dataset):
    return np.concatenate(batches(dataset)).tolist()


def test_the_next_epoch_has_the_new_examples_and_the_order_goes_on():
    dataset, untouched = make(shuffle=True), make(shuffle=True)
    assert rows(dataset) == order(untouched)
    dataset.replace(np.arange(N) + 1000)
    assert rows(dataset) == [1000 + i for i in order(untouched)]
    dataset.seek(0)
    untouched.seek(0)
    assert rows(dataset) == [1000 + i for i in order(untouched)]


def test_an_iterator_that_has_given_a_batch_keeps_its_examples():
    dataset = make(y=np.arange(N))
    running = iter(dataset)
    first = next(running)
    dataset.replace(np.arange(N) + 1000, np.arange(N) + 1000)
    old = np.concatenate([x for x, _ in [first, *running]])
    new = np.concatenate([x for x, _ in dataset.as_numpy_iterator()])
    assert old.tolist() == list(range(N))
    assert new.tolist() == [1000 + i for i in range(N)]


def test_new_arrays_are_prepared_like_the_first():
    x, y = images(), np.arange(N) % 5
    options = {"num_classes": 5, "class_weight": {0: 3.0, 1: 0.5}, "shuffle": True}
    expected = make(x, y, **options)
    dataset = make(x[::-1], np.zeros(N, int), **options)
    dataset.replace(x, y[:, None])
    for one, other in zip(batches(dataset), batches(expected), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_structures_and_weights_are_replaced():
    first = {"a": np.zeros((N, 2)), "b": np.zeros(N, int)}
    dataset = make(first, [np.zeros(N), np.zeros(N)], sample_weight=np.ones(N))
    new = {"b": np.arange(N), "a": np.ones((N, 2))}
    dataset.replace(new, (np.ones(N), np.ones(N)), sample_weight=np.arange(N) * 1.0)
    x, y, weights = batches(dataset, 1)[0]
    np.testing.assert_array_equal(x["b"], np.arange(16))
    assert x["a"].min() == y[0].min() == y[1].min() == 1
    np.testing.assert_array_equal(weights[1], np.arange(16))


def test_datasets_made_of_it_follow():
    dataset = make()
    mapped = dataset.map(lambda x: x * 2)
    dataset.replace(np.arange(N) + 100)
    assert next(iter(mapped))[0] == 200


def test_the_new_arrays_are_copied():
    dataset, new = make(), np.arange(N)
    dataset.replace(new)
    new[:] = -1
    assert rows(dataset) == list(range(N))


def test_under_a_strategy_the_distributed_dataset_follows():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        dataset = make()
    distributed = strategy.experimental_distribute_dataset(dataset)
    for start in (0, 1000):
        got = [
            np.concatenate([t.numpy() for t in strategy.experimental_local_results(b)])
            for b in distributed
        ]
        assert np.concatenate(got).tolist() == list(range(start, start + N))
        dataset.replace(np.arange(N) + 1000)


def test_the_batches_of_the_graph_are_replaced_at_the_next_epoch_too():
    dataset = make(shuffle=True)
    resident = dataset.resident

    @tf.function
    def first_batch_and_stack():
        step = tf.constant(0, tf.int64)
        return resident.reader()(step), resident.get_stack(step, 2)

    dataset.replace(np.arange(N) + 100)  # before the first epoch
    for start, replaces in ((100, False), (100, True), (1000, False)):
        resident.seek(3)
        if replaces:
            dataset.replace(np.arange(N) + 1000)
        batch, stack = first_batch_and_stack()
        dataset.seek(3)
        expected = np.stack(batches(dataset, 2)) - (1000 - start if replaces else 0)
        np.testing.assert_array_equal(stack, expected)
        np.testing.assert_array_equal(batch, expected[0])
        assert expected.min() >= start


@pytest.mark.parametrize(
    ("words", "arguments", "options"),
    [
        (r"x: expected int64 of shape \(70,\) .*, got int64 of shape \(71,\)", [np.arange(71)], {}),
        (r"x: expected int64 .*, got float32 of shape \(70,\)", [np.zeros(N)], {}),
        (r"x: expected int64 .*, got nothing", [{"a": np.arange(N)}], {}),
        (r"y: expected nothing .*, got int64", [np.arange(N), np.arange(N)], {}),
        (r"y: expected int64 .*, got nothing", [np.arange(N)], {"y": np.arange(N)}),
        (r"y\['b'\]: expected .*\(70, 2\) .*, got .*\(70, 3\)",
         [np.arange(N), {"a": np.zeros(N), "b": np.zeros((N, 3))}],
         {"y": {"a": np.zeros(N), "b": np.zeros((N, 2))}}),
        ("expected 0 to 2, got 3", [np.arange(N), np.full(N, 3)],
         {"y": np.zeros(N, int), "num_classes": 3}),
        ("x has 70, y has 3", [np.arange(N), np.arange(3)], {"y": np.arange(N)}),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_and_the_old_arrays_stay(words, arguments, options):
    dataset = make(**options)
    with pytest.raises(ValueError, match=words) as caught:
        dataset.replace(*arguments)
    assert "\n" not in str(caught.value)
    first = batches(dataset, 1)[0]
    x = first[0] if options else first
    np.testing.assert_array_equal(x, np.arange(16))


def test_images_are_named_by_the_shape_that_was_passed():
    dataset = make(images())
    with pytest.raises(ValueError, match=r"\(70, 28, 28\) as .*, got uint8 of shape \(70, 9, 9\)"):
        dataset.replace(images(shape=(9, 9)))


MEMORY = """
import numpy as np
import tensorflow as tf
from gradloop.data import pipeline

def megabytes():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

def train_epoch(epoch):
    dataset.resident.seek(epoch)
    dataset.resident.advance(tf.constant(dataset.num_batches))
    next(iter(dataset))

arrays = [np.full((2**16, 2**10), value, np.uint8) for value in (1, 2)]  # 64 MiB each
dataset = pipeline.make_dataset(arrays[0], global_batch_size=32)
train_epoch(0)
before = megabytes()
for epoch in range(1, 4):
    dataset.replace(arrays[epoch % 2])
    assert megabytes() - before < 32, megabytes() - before
    train_epoch(epoch)
"""


def test_the_old_arrays_are_freed():
    # The allocator of oneDNN keeps what is freed for later, and hides it.
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"}
    command = [sys.executable, "-c", MEMORY]
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
