"""Trees of dicts, lists, numbers and arrays go through JSON and come back equal."""

import json
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradloop.engine.storage import trees
from gradloop.engine.storage.archive import DamagedError

leaves = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
keys = st.text() | st.sampled_from(["$array", "$dict", "$"]) | st.integers()
any_tree = st.recursive(leaves, lambda t: st.lists(t) | st.dictionaries(keys, t), max_leaves=20)


def _through_json(tree):
    arrays = []
    text = json.dumps(trees.encode(tree, arrays), allow_nan=False)
    return trees.decode(json.loads(text), arrays)


@given(any_tree)
def test_trees_come_back_equal(tree):
    assert _through_json(tree) == tree


def test_arrays_and_numbers_that_json_lacks_come_back():
    array = np.arange(6, dtype="float16").reshape(2, 3)
    tree = {"best": [array, np.float32(0.1), np.int64(3), np.bool_(True)], "nan": math.nan}
    back = _through_json(tree | {"inf": [math.inf, -math.inf], "half": ml_dtypes.bfloat16(1.5)})
    assert back["best"][0] is array
    assert back["best"][1:] == [float(np.float32(0.1)), 3, True]
    assert [type(one) for one in back["best"][1:]] == [float, int, bool]
    assert math.isnan(back["nan"]) and back["inf"] == [math.inf, -math.inf] and back["half"] == 1.5


def test_a_tuple_comes_back_as_a_list():
    assert _through_json({"logs": ({}, 4)}) == {"logs": [{}, 4]}


@pytest.mark.parametrize("value", [b"bytes", object(), {1}, np.array(["text"]), 1j])
def test_what_no_checkpoint_holds_is_named_with_its_place(value):
    with pytest.raises(TypeError, match=r"the state of /hooks/MyHook/1 is a \w+: a checkpoint"):
        trees.encode({"hooks": {"MyHook": [0, value]}}, [])


@pytest.mark.parametrize(
    "tree",
    [{"$array": 1}, {"$array": -1}, {"$array": "0"}, {"$float": "1"}, {"$dict": {}}, {"$code": 1},
     {"$array": 0, "more": 1}],
)  # fmt: skip
def test_unknown_kinds_are_damage(tree):
    with pytest.raises(DamagedError):
        trees.decode({"a": [tree]}, [np.zeros(1)])
