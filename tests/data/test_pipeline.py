"""What a batch holds: pixels, labels, structures, sizes, augmentation."""

import numpy as np
import pytest
import tensorflow as tf

from gradloop.data import pipeline
from tests.data.datasets import N, batches, images, make


def test_the_call_of_the_design():
    x, y = images(), np.arange(N, dtype=np.uint8) % 10
    dataset = pipeline.make_dataset(
        x, y, global_batch_size=64, num_classes=10, shuffle=True, seed=0
    )
    assert isinstance(dataset, tf.data.Dataset)
    assert dataset.element_spec == (
        tf.TensorSpec((None, 28, 28, 1), tf.float32),
        tf.TensorSpec((None, 10), tf.float32),
    )
    assert dataset.cardinality() == len(dataset) == dataset.num_batches == 2
    assert dataset.num_examples == N


def test_pixels_are_divided_by_255_bit_for_bit_and_get_a_channel_axis():
    x = images()
    scaled = np.concatenate(batches(make(x)))
    np.testing.assert_array_equal(scaled, (x.astype(np.float32) / 255)[..., None])
    raw = np.concatenate(batches(make(x, rescale=False, channel_axis=False)))
    np.testing.assert_array_equal(raw, x.astype(np.float32))
    assert raw.dtype == np.float32


IDS = np.random.default_rng(0).integers(0, 256, (N, 12), np.uint8)


@pytest.mark.parametrize("rescale", [None, False])
@pytest.mark.parametrize("x", [IDS, IDS[:, 0], IDS[:, 0] % 2], ids=["tokens", "ids", "zero or one"])
def test_bytes_that_are_no_images_stay_as_they_are(x, rescale):
    got = np.concatenate(batches(make(x, rescale=rescale)))
    np.testing.assert_array_equal(got, x)
    assert got.dtype == np.uint8


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 3)])
def test_images_beside_them_are_scaled(shape):
    got = batches(make({"image": images(shape=shape), "ids": IDS}), 1)[0]
    assert got["ids"].dtype == np.uint8
    expected = images(shape=shape)[:16].astype(np.float32) / 255
    np.testing.assert_array_equal(got["image"].reshape(expected.shape), expected)


def test_flat_or_other_pixels_are_scaled_if_that_is_asked_for():
    for x in (IDS, images(shape=(2, 3, 4, 1))):
        got = np.concatenate(batches(make(x, rescale=True)))
        np.testing.assert_array_equal(got, x.astype(np.float32) / 255)


def test_labels_become_one_hot_rows():
    y = np.arange(N) % 7
    for labels in (y, y[:, None], y.astype(np.uint8), y.astype(np.int64)):
        got = np.concatenate([b[1] for b in batches(make(y=labels, num_classes=7))])
        np.testing.assert_array_equal(got, np.eye(7, dtype=np.float32)[y])
        assert got.dtype == np.float32


@pytest.mark.parametrize("shape", [(), (5,), (4, 4, 3), (2, 3, 4, 5)])
def test_arrays_of_any_rank_go_through(shape):
    x = np.random.default_rng(0).normal(size=(N, *shape))
    got = np.concatenate(batches(make(x)))
    np.testing.assert_array_equal(got, x.astype(np.float32))


def test_several_inputs_and_outputs_keep_their_structure():
    x = {"b": images(), "a": np.arange(N)}
    y = [np.arange(N) % 3, np.arange(N, dtype=np.float64)[:, None]]
    dataset = make(x, y, num_classes=[3, None], shuffle=True)
    got_x, got_y = batches(dataset, 1)[0]
    assert set(got_x) == {"a", "b"} and isinstance(got_y, tuple)
    rows = got_x["a"]
    np.testing.assert_array_equal(got_x["b"][..., 0], x["b"][rows].astype(np.float32) / 255)
    np.testing.assert_array_equal(got_y[0].argmax(1), y[0][rows])
    np.testing.assert_array_equal(got_y[1], y[1][rows].astype(np.float32))


def test_x_alone_is_packed_as_fit_takes_it():
    assert isinstance(make().element_spec, tf.TensorSpec)
    spec = make([np.zeros((N, 2)), np.zeros((N, 3))]).element_spec
    assert len(spec) == 1 and len(spec[0]) == 2


def test_the_arrays_are_copied():
    x = np.zeros(N)
    dataset = make(x)
    x[:] = 1
    assert not np.concatenate(batches(dataset)).any()


def test_the_partial_last_batch_is_kept_by_default():
    assert [len(b) for b in batches(make())] == [16, 16, 16, 16, 6]
    assert make().element_spec.shape == (None,)


def test_drop_remainder_drops_it_and_makes_the_size_static():
    dataset = make(drop_remainder=True)
    assert [len(b) for b in batches(dataset)] == [16] * 4
    assert dataset.element_spec.shape == (16,)
    assert len(dataset) == dataset.num_batches == 4


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
