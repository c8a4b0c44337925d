"""Weights and splits are those of Keras; a wrong argument raises an error of one line."""

import numpy as np
import pytest

from gradloop.data import pipeline
from tests.data.datasets import N, batches, make


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
        ("one row per example", {"x": np.float32(3)}),
    ],
)
def test_wrong_input_is_a_one_line_error(words, options):
    if "expected 0 to 9" in words or "integers 0" in words or "shape" in words or "-1" in words:
        options = {**options, "num_classes": 10}
    with pytest.raises(ValueError, match=words) as caught:
        make(**options)
    assert "\n" not in str(caught.value)
