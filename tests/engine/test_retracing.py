"""Retraces: counted, explained, and an error if there are too many."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.data import pipeline
from gradloop.engine.config import TrainConfig
from gradloop.engine.loop import fit
from gradloop.engine.options import ConfigError
from gradloop.engine.retracing import FIRST_CALL, RetraceError, explain
from gradloop.engine.state import TrainState
from gradloop.engine.step import train_step
from gradloop.engine.step_function import make_train_function
from gradloop.engine.strategy import make_strategy
from tests.engine import nets
from tests.engine.observers import Every

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")


def make_state(strategy=None):
    with (strategy or tf.distribute.get_strategy()).scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        return TrainState(model, "sgd", loss="mse")


def make_dataset(x=X):
    return tf.data.Dataset.from_tensor_slices((x, x.sum(1, keepdims=True))).batch(4)


def fit_twice(first, second, **fields):
    state = make_state()
    fit(state, first, TrainConfig(**fields))
    before = [weight.copy() for weight in state.model.get_weights()]
    return state, before, lambda: fit(state, second, TrainConfig(**fields))


def cause(first, second):
    """Returns the cause of the retrace that the second fit would need."""
    _, _, again = fit_twice(first, second, max_retraces=0)
    with pytest.raises(RetraceError, match="train_step needs trace number 2") as error:
        again()
    return str(error.value)


def weighted(dataset):
    return dataset.map(lambda x, y: (x, y, tf.ones(tf.shape(y)[0])))


def test_first_calls_are_no_retraces():
    history = fit(make_state(), make_dataset(), TrainConfig(), validation_data=make_dataset())
    assert history.traces == [
        {"function": "train_step", "cause": FIRST_CALL},
        {"function": "eval_step", "cause": FIRST_CALL},
    ]


def test_another_dataset_of_the_same_kind_is_no_trace():
    _, _, again = fit_twice(make_dataset(), make_dataset(), max_retraces=0)
    assert again().traces == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x, y: (tf.cast(x, tf.float64), y), "batch[0]: dtype float64, before float32"),
        (lambda x, y: (x, y[:, 0]), "batch[1]: shape (None,), before (None, 1)"),
        (lambda x, y: (x, y, tf.ones(tf.shape(y)[0])), "batch[2] is new"),
        (lambda x, y: ({"image": x}, y), "batch[0]['image'] is new"),
    ],
)
def test_what_changed_in_the_batch_is_named(change, expected):
    assert expected in cause(make_dataset(), make_dataset().map(change))


def test_all_changes_are_named_and_nothing_else():
    dataset = make_dataset()
    changed = dataset.map(lambda x, y: (tf.cast(x, tf.float64), y[:, 0]))
    expected = "batch[0]: dtype float64, before float32; batch[1]: shape (None,), before (None, 1)."
    assert f": {expected}" in cause(dataset, changed)


def test_another_dataset_whose_batches_the_graph_makes():
    make = lambda: pipeline.make_dataset(X, X[:, :1], global_batch_size=4)  # noqa: E731
    assert "another dataset object" in cause(make(), make())
    assert "the iterator: kind" in cause(make(), make().map(lambda x, y: (x, y)))


def test_type_of_num_steps_is_an_argument_too():
    state = make_state()
    state.build(make_dataset().element_spec)
    function = make_train_function(train_step, state, state.strategy, TrainConfig())
    function(iter(make_dataset()), tf.constant(1))
    # Its loop counts in int32: the retrace fails, but it is explained before.
    with pytest.raises((TypeError, ValueError)):
        function(iter(make_dataset()), tf.constant(1, tf.int64))
    assert "num_steps: dtype int64, before int32" in function.traces[-1].cause


def test_replicas_are_explained_too():
    strategy = make_strategy(TrainConfig(strategy="mirrored", num_replicas=2))
    state = make_state(strategy)
    fit(state, make_dataset(), TrainConfig())
    history = fit(state, weighted(make_dataset()), TrainConfig())
    assert history.traces == [{"function": "train_step", "cause": "batch[2] is new"}]


def test_the_most_similar_earlier_trace_is_compared_with():
    small = {"num_steps": {"dtype": "int32"}, "batch[0]": {"shape": "(4,)", "dtype": "float32"}}
    weighted = small | {"batch[1]": {"shape": "(4,)", "dtype": "float32"}}
    other = small | {"batch[0]": {"shape": "(4,)", "dtype": "int8"}}
    assert explain(other, []) == FIRST_CALL
    assert explain(other, [small, weighted]) == "batch[0]: dtype int8, before float32"
    assert explain(small, [weighted]) == "batch[1] is gone"
    assert "nothing changed" in explain(small, [small])


def test_surplus_trace_is_an_error_before_any_step_of_it():
    changed = make_dataset().map(lambda x, y: (x, y[:, 0]))
    state, before, again = fit_twice(make_dataset(), changed, max_retraces=0)
    with pytest.raises(RetraceError, match=r"train_step.*max_retraces=0.*batch\[1\]: shape") as e:
        again()
    assert isinstance(e.value, ConfigError)
    for weight, value in zip(state.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_as_many_retraces_as_allowed():
    _, _, again = fit_twice(make_dataset(), weighted(make_dataset()), max_retraces=1)
    history = again()
    assert history.traces == [{"function": "train_step", "cause": "batch[2] is new"}]
    assert history.num_traces == 1


def test_one_trace_for_training_and_one_for_validation(dataset):
    config = nets.make_config(epochs=3)
    history = fit(nets.make_tiny(), dataset, config, validation_data=dataset)
    assert history.num_traces == 2
    # Executions of 3, 3 and 1 steps; a partial last batch.
    assert history.epoch_steps == [nets.NUM_BATCHES] * 3


def test_step_is_traced_once_whatever_the_sizes(dataset):
    calls = []

    def train_step(state, batch):
        calls.append(batch)
        return {}

    config = nets.make_config(epochs=4, steps_per_execution="auto")
    fit(nets.make_tiny(), dataset, config, train_step=train_step, hooks=[Every(5)])
    assert len(calls) == 1
