"""Tuning: what is measured, and what it is measured against."""

import dataclasses
import functools
import json
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.data import pipeline
from gradloop.engine.tuning import search
from gradloop.engine.tuning import trial as trial_lib

CONFIG = engine.TrainConfig()
# No trial is left out because other tests take the time.
tune = functools.partial(search.tune, max_secs=600.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(search, "WARM_UP_SECS", 0.05)
    monkeypatch.setattr(search, "NUM_ROUNDS", 2)
    monkeypatch.setattr(trial_lib, "WINDOW_SECS", 0.02)


def make_state():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
    return engine.TrainState(model, "sgd", loss="categorical_crossentropy")


def make_dataset(prefetch=4):
    x = np.random.default_rng(0).random((64, 4), dtype=np.float32)
    y = (x[:, 0] > 0.5).astype(np.int64)
    return pipeline.make_dataset(x, y, global_batch_size=8, num_classes=2, prefetch=prefetch)


def make_dataset_that_is_slow_if_streamed(**changes):
    def sleep(x):
        time.sleep(0.02)
        return x

    dataset = make_dataset(**changes)
    slow = dataset.map(
        lambda x, y: (tf.ensure_shape(tf.numpy_function(sleep, [x], x.dtype), x.shape), y)
    )
    slow.resident = dataset.resident
    return slow


def test_every_trial_is_in_the_table_with_what_it_does_to_the_bits():
    result = tune(make_state, make_dataset, CONFIG)
    changes = [one.changes for one in result.measurements]
    assert changes[0] == {}
    assert {"steps_per_execution": 1} in changes
    assert {"numerics": "fast", "jit_compile": True, "jit_scope": "loop"} in changes
    for one in result.measurements:
        assert one.changes_bits == ("numerics" in one.changes)
        assert one.gain is not None or one.note
    assert not {"numerics", "jit_compile", "precision"} & result.exact.keys()
    json.dumps(dataclasses.asdict(result))
    assert "others" in result.to_table()


def test_a_planted_slow_choice_is_not_taken_and_a_hopeless_one_given_up():
    result = tune(make_state, make_dataset_that_is_slow_if_streamed, CONFIG)
    assert "input" not in result.exact
    (one, _) = (m for m in result.measurements if m.changes.get("input") == "streamed")
    assert "given up" in one.note


def test_a_trial_may_change_the_prefetch_of_its_dataset():
    asked = []

    def make(**changes):
        asked.append(changes)
        return make_dataset(**changes)

    tune(make_state, make, CONFIG)
    assert {} in asked and {"prefetch": 16} in asked


def test_threads_are_tried_in_new_processes_and_the_faster_number_is_taken():
    calls = []

    def secs_in_process(changes, num_steps):
        calls.append(changes)
        assert num_steps >= 2
        return 0.5 if changes.get("inter_op_threads") == 1 else 1.0

    result = tune(make_state, make_dataset, CONFIG, secs_in_process=secs_in_process)
    assert result.exact["inter_op_threads"] == result.fast["inter_op_threads"] == 1
    assert "intra_op_threads" not in result.exact | result.fast
    (inter,) = (m for m in result.measurements if m.changes == {"inter_op_threads": 1})
    (intra,) = (m for m in result.measurements if "intra_op_threads" in m.changes)
    assert (inter.gain, inter.usecs_per_step, inter.changes_bits) == (2.0, 0.5e6, False)
    assert (intra.gain, intra.changes_bits) == (1.0, True)
    assert [call["numerics"] for call in calls] == ["exact", "exact", "fast", "fast"]


def test_what_a_process_trains_with_does_not_depend_on_what_a_person_set():
    calls = []
    config = engine.TrainConfig(numerics="fast", steps_per_execution=3, jit_compile=True)
    tune(make_state, make_dataset, config, secs_in_process=lambda changes, _: calls.append(changes))
    best_is_default = {"numerics": "exact", "jit_compile": None, "jit_scope": "step"}
    assert best_is_default.items() <= calls[0].items()
    assert calls[0]["steps_per_execution"] != 3


def test_a_process_that_fails_is_noted():
    result = tune(make_state, make_dataset, CONFIG, secs_in_process=lambda *_: None)
    notes = [m.note for m in result.measurements if "inter_op_threads" in m.changes]
    assert notes == ["its process failed"]


def test_no_trial_begins_when_no_time_is_left():
    result = search.tune(make_state, make_dataset, CONFIG, max_secs=0)
    notes = {one.note for one in result.measurements[:1]} | {
        one.note for one in result.measurements if one.changes
    }
    assert "no time was left" in notes
    assert result.exact == {}


def test_replicas_are_refused():
    config = engine.TrainConfig(strategy="mirrored", num_replicas=2)
    with pytest.raises(engine.ConfigError, match="one device"):
        tune(make_state, make_dataset, config)


def test_nothing_global_is_left_behind():
    before = keras.config.dtype_policy().name
    tune(make_state, make_dataset, CONFIG)
    assert keras.config.dtype_policy().name == before
    assert tf.distribute.has_strategy() is False
