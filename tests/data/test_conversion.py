"""Whatever a person passes as arrays is taken as fit takes it, or refused in one line."""

import datetime

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.data import pipeline
from tests.data.datasets import N, batches, make


def scipy_table():
    """Stands for a table of scipy, which is not required: it has no `__array__`."""
    return type("csr_matrix", (), {"tocoo": None, "shape": (N, 4)})()


DAYS = np.full((N, 2), "2020-01-01", "datetime64[D]")
OBJECTS = np.array([datetime.date(2020, 1, 1)] * N)
ROWS = [np.zeros(4) for _ in range(N)]
RAGGED = np.array([np.ones(i % 3 + 1) for i in range(N)], object)


@pytest.mark.parametrize(
    ("words", "x"),
    [
        (r"x: expected a dense array, got a csr_matrix; pass x.toarray\(\)", scipy_table()),
        (r"x\['a'\]: expected a dense array, .*pass x\['a'\].toarray\(\)", {"a": scipy_table()}),
        (r"got a SparseTensor; pass tf.sparse.to_dense\(x\)", tf.sparse.eye(N)),
        (r"got a RaggedTensor; pass x.to_tensor\(\)", tf.ragged.constant([[1.0], [2.0, 3.0]])),
        (r"x: expected an array, got a list of str; pass np.array\(x\)", ["a", "b"]),
        (r"x: expected an array, got a tuple of float; pass np.array\(x\)", (0.5, 1.0)),
        (r"x: expected an array, got a list of int; pass np.array\(x\)", [[1, 2], [3, 4]]),
        (r"np.stack joins rows", ROWS),
        (r"x: expected numbers, got datetime64\[D\]; .*\(x - x.min\(\)\) / np.timedelta64", DAYS),
        (r"got timedelta64\[D\]; .*such as x / np.timedelta64", DAYS - DAYS.min()),
        (r"x: expected numbers or strings, got objects such as date", OBJECTS),
        (r"objects such as int; pass x.astype\('float32'\)", np.arange(N).astype(object)),
        (r"objects such as ndarray; .*rows of one length", RAGGED),
        (r"got the fields \('a', 'b'\)", np.zeros(N, [("a", "f4"), ("b", "f4")])),
        (r"x: expected one row per example, got the single value a map", map(abs, [1])),
        (r"single value data.csv", "data.csv"),
        (r"x: expected an array or a structure of arrays, got None", None),
    ],
)
def test_what_is_no_array_is_named_with_the_fix(words, x):
    with pytest.raises(ValueError, match=words) as caught:
        pipeline.make_dataset(x, np.zeros(N), global_batch_size=16)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_strings_as_labels_are_told_how_to_become_numbers():
    labels = np.array(["cat", "dog"])[np.arange(N) % 2]
    for given in (labels, labels.astype(object)):
        with pytest.raises(ValueError, match=r"number them with classes, y = np\.unique"):
            make(y=given, num_classes=2)


@pytest.mark.parametrize("form", [np.asarray, lambda x: x.astype(object), tf.constant])
def test_strings_as_inputs_stay_strings(form):
    words = np.array(["one", "two"])[np.arange(N) % 2]
    first = batches(make(form(words)), 1)[0]
    assert [word.decode() for word in first] == words[:16].tolist()


@pytest.mark.parametrize(
    "form", [tf.constant, keras.ops.convert_to_tensor, np.ma.array, memoryview]
)
def test_whatever_is_an_array_to_numpy_is_taken(form):
    x = np.random.default_rng(0).normal(size=(N, 3)).astype("float32")
    np.testing.assert_array_equal(np.concatenate(batches(make(form(x)))), x)


def test_tables_and_columns_of_pandas_are_taken_as_fit_takes_them():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"a": np.arange(N), "b": np.linspace(0, 1, N)})
    x, y = batches(make(table, table["a"]), 1)[0]
    adapter = keras.src.trainers.data_adapters.get_data_adapter(table, table["a"], batch_size=16)
    theirs_x, theirs_y = next(iter(adapter.get_tf_dataset()))
    np.testing.assert_array_equal(x, theirs_x)
    np.testing.assert_array_equal(y, theirs_y)
    assert y.shape == theirs_y.shape == (16, 1)
