"""Weights, augmentation and splits are those of Keras; wrong input gets one line."""

import numpy as np
import pytest
import tensorflow as tf

from gradloop.data import pipeline
from tests.data.datasets import N, batches, images, make


def test_sample_weights_travel_with_their_examples():
    weights = np.random.default_rng(0).random(N)
    dataset = make(y=np.arange(N), sample_weight=weights, shuffle=True)
    for x, y, w in batches(dataset):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(w, weights.astype(np.float32)[x])


@pytest.mark.parametrize(
    "form",
    [
        lambda y: y,
        lambda y: y[:, None],
        lambda y: np.eye(4, dtype=np.float32)[y],
        lambda y: y.astype(np.float32),
    ],
)
def test_class_weights_are_those_of_keras(form):
    from keras.src.trainers.data_adapters import data_adapter_utils

    y = form(np.arange(N) % 4)
    class_weight = {0: 0.1, 2: 3.0}
    got = np.concatenate([b[2] for b in batches(make(y=y, class_weight=class_weight))])
    expected = data_adapter_utils.class_weight_to_sample_weights(y, class_weight)
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == expected.dtype and got[1] == 1.0


def test_one_sample_weight_serves_every_output():
    w = np.arange(N, dtype=np.float32)
    dataset = make(y={"a": np.zeros(N), "b": np.zeros(N)}, sample_weight=w)
    _, _, got = batches(dataset, 1)[0]
    np.testing.assert_array_equal(got["a"], w[:16])
    np.testing.assert_array_equal(got["b"], w[:16])


def noise(x, seed):
    return x + tf.random.stateless_uniform(tf.shape(x), seed)


def test_augmentation_depends_on_seed_epoch_and_step_alone():
    x = np.zeros((N, 3))
    one = make(x, augment=noise, seed=5)
    epochs = [batches(one), batches(one)]
    flat = [b.tobytes() for epoch in epochs for b in epoch]
    assert len(set(flat)) == 10
    again = make(x, augment=noise, seed=5)
    again.seek(1, 3)
    np.testing.assert_array_equal(batches(again, 1)[0], epochs[1][3])
    assert (batches(make(x, augment=noise, seed=6), 1)[0] != epochs[0][0]).any()


def test_augmentation_sees_scaled_pixels():
    def check(x, seed):
        assert x.dtype == tf.float32 and x.shape.as_list() == [None, 4, 4, 1]
        return tf.image.stateless_random_flip_left_right(x, seed)

    got = batches(make(images(shape=(4, 4)), augment=check), 1)[0]
    assert 0.5 < got.max() <= 1.0


@pytest.mark.parametrize("fraction", [0.1, 1 / 3, 0.5, 0.9])
def test_validation_split_is_that_of_keras(fraction):
    from keras.src.trainers.data_adapters import array_slicing

    arrays = (np.arange(N), np.arange(N) * 2, None)
    got = pipeline.train_validation_split(arrays, fraction)
    expected = array_slicing.train_validation_split(arrays, fraction)
    for part, want in zip(got, expected, strict=True):
        assert part[2] is None
        np.testing.assert_array_equal(part[0], want[0])
        np.testing.assert_array_equal(part[1], want[1])


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 0.99, 1e-20])
def test_validation_split_refuses_what_leaves_nothing(fraction):
    with pytest.raises(ValueError, match="validation_split"):
        pipeline.train_validation_split(np.arange(10), fraction)


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("global_batch_size: expected an integer of 1 or more, got 0", {"global_batch_size": 0}),
        ("got -3", {"global_batch_size": -3}),
        ("got 2.5", {"global_batch_size": 2.5}),
        ("at most 70", {"global_batch_size": 71, "drop_remainder": True}),
        ("x has 70, y has 69", {"y": np.zeros(69)}),
        ("sample_weight has 3", {"y": np.zeros(N), "sample_weight": np.ones(3)}),
        ("x has 69 and 70", {"x": [np.zeros(N), np.zeros(69)]}),
        ("expected 0 to 9, got 10 at index 69", {"y": np.r_[np.zeros(69, int), 10]}),
        ("got -1 at index 0", {"y": np.r_[-1, np.zeros(69, int)]}),
        ("expected integers 0 to 9, got float32", {"y": np.zeros(N)}),
        (r"expected shape \(n,\), got \(70, 10\)", {"y": np.zeros((N, 10), int)}),
        ("at least one example", {"x": np.zeros((0, 3))}),
        ("expected one of stateless, keras, got 'sorted'", {"order": "sorted"}),
        ("pass y", {"num_classes": 3, "y": None}),
        ("got both", {"y": np.zeros(N), "sample_weight": np.ones(N), "class_weight": {0: 1.0}}),
        ("single output", {"y": [np.zeros(N)], "class_weight": {0: 1.0}}),
        ("each of the outputs", {"y": [np.zeros(N, int)], "num_classes": 10}),
        ("one row an example", {"x": np.float32(3)}),
    ],
)
def test_wrong_input_is_a_one_line_error(words, options):
    if "expected 0 to 9" in words or "integers 0" in words or "shape" in words or "-1" in words:
        options = {**options, "num_classes": 10}
    with pytest.raises(ValueError, match=words) as caught:
        make(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", pipeline.ORDERS)
def test_resident_batches_are_those_of_the_data_set_in_all_bits(order):
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
    def batch_at(offset):
        return dataset.resident.reader()(offset)

    for start in (0, 3):
        dataset.resident.seek(1, start)
        for step in range(start, 6):
            actual = batch_at(tf.constant(step - start))
            for a, b in zip(actual, expected[step], strict=True):
                np.testing.assert_array_equal(a.numpy(), b.numpy())
    dataset.resident.seek(1, 3)
    dataset.resident.advance(tf.constant(2))
    np.testing.assert_array_equal(batch_at(tf.constant(0))[0].numpy(), expected[5][0].numpy())
    # Beyond the end there is the last batch: the loop prepares one that nobody takes.
    np.testing.assert_array_equal(batch_at(tf.constant(9))[0].numpy(), expected[5][0].numpy())
