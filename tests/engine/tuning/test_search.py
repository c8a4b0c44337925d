"""Tuning: what is measured, and what it is measured against."""

import dataclasses
import functools
import json
import re
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.data import pipeline
from gradloop.engine.tuning import bench, search
from gradloop.engine.tuning.choice import Bits
from tests.engine.tuning.fake_trials import MADE, FakeTrial

CONFIG = engine.TrainConfig()
# No trial is left out because other tests take the time.
tune = functools.partial(search.tune, max_secs=600.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(bench, "WARM_UP_SECS", 0.05)
    monkeypatch.setattr(bench, "NUM_ROUNDS", 2)
    monkeypatch.setattr(bench, "BURST_SECS", 0.02)


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


def test_every_trial_is_in_the_table_beside_the_defaults_and_in_its_class():
    shown = []
    result = tune(make_state, make_dataset, CONFIG, show=shown.append)
    changes = [one.changes for one in result.measurements]
    assert changes[0] == {}
    assert any(c.get("steps_per_execution") == 1 for c in changes)  # of what is best so far
    assert {"jit_compile": True} in changes
    assert any(c.get("numerics") == "fast" and c.get("jit_scope") == "update" for c in changes)
    assert {one.bits for one in result.measurements} == set(Bits)
    for one in result.measurements:
        assert one.gain is not None or one.note
        if one.gain is not None:
            assert one.gain_low <= one.gain <= one.gain_high
    assert not {"numerics", "jit_compile", "precision"} & result.exact.keys()
    json.dumps(dataclasses.asdict(result))
    assert len(shown) == len(result.measurements) - 1
    assert re.match(r"trial 1 of about 1\d: compile_update=true: ", shown[0])
    check_what_is_kept(result)


def check_what_is_kept(result):
    """It is the fastest row of the table in its class."""
    kept = {Bits.FIT: result.exact, Bits.XLA: result.xla, Bits.FREE: result.fast}
    for bits, choice in kept.items():
        rows = {
            json.dumps({k: v for k, v in one.changes.items() if k != "numerics"}): one.gain
            for one in result.measurements
            if one.bits is bits and one.gain is not None
        }
        assert rows[json.dumps(choice)] == max(rows.values())


def test_a_planted_slow_choice_is_not_taken_and_a_hopeless_one_given_up():
    result = tune(make_state, make_dataset_that_is_slow_if_streamed, CONFIG)
    assert "input" not in result.exact
    (one, _) = (m for m in result.measurements if m.changes.get("input") == "streamed")
    assert "given up" in one.note


def test_steps_in_xla_are_not_tried_again_once_they_are_hopeless(monkeypatch):
    tried = []

    class Slow(FakeTrial):
        def __init__(self, config):
            is_compiled = config.jit_compile and config.jit_scope != "update"
            super().__init__(0.1 if is_compiled else 1.0)
            tried.append((config.jit_compile, config.jit_scope))

    monkeypatch.setattr(bench, "make_trial", lambda state, dataset, config, step: Slow(config))
    result = tune(make_state, make_dataset, CONFIG)
    assert tried.count((True, "step")) == 1
    assert (True, "loop") not in tried
    assert (True, "update") in tried
    notes = {json.dumps(one.changes): one.note for one in result.measurements}
    assert notes[json.dumps({"jit_compile": True})] == "given up: 10.0 times slower"
    loop = json.dumps({"jit_compile": True, "jit_scope": "loop"})
    assert notes[loop] == "given up: steps in XLA are 10.0 times slower"
    assert (result.xla, result.notes["xla"]) == ({}, "given up: 10.0 times slower")


def test_a_trial_may_change_the_prefetch_of_its_dataset():
    asked = []

    def make(**changes):
        asked.append(changes)
        return make_dataset(**changes)

    tune(make_state, make, CONFIG)
    assert {} in asked and {"prefetch": 16} in asked


@pytest.fixture
def fake_search(monkeypatch):
    """Returns a search of trials that do not train: their speeds and bits are made up."""

    def run(speed_of, bits_of=lambda changes: "", config=CONFIG, **arguments):
        """Returns the result, and the processes that it has started, with their changes."""
        started = []

        def start(changes):
            trial = FakeTrial(speed_of(changes), bits_of(changes), in_process=True)
            started.append((changes, trial))
            return trial

        def make_trial(state, dataset, config, step):
            return FakeTrial(0.5 * speed_of(dataclasses.asdict(config)))  # as other work runs here

        monkeypatch.setattr(bench, "make_trial", make_trial)
        result = tune(make_state, make_dataset, config, trial_in_process=start, **arguments)
        return result, started

    return run


def test_threads_are_tried_in_processes_beside_what_they_change(fake_search):
    def speed_of(changes):
        is_compiled = changes["jit_compile"] and changes["jit_scope"] == "loop"
        return (4.0 if is_compiled else 1.0) * (2.0 if changes.get("inter_op_threads") else 1.0)

    config = engine.TrainConfig(numerics="fast", steps_per_execution=3, jit_compile=True)
    result, started = fake_search(speed_of, config=config)
    assert result.exact == {"inter_op_threads": 1}
    (inter,) = (m for m in result.measurements if m.changes == {"inter_op_threads": 1})
    assert (inter.gain, inter.usecs_per_step, inter.usecs_beside) == (2.0, 0.5e6, 1e6)
    loop = {"jit_compile": True, "jit_scope": "loop"}
    (intra,) = (m for m in result.measurements if m.changes == loop | {"intra_op_threads": 1})
    assert (intra.gain, intra.usecs_per_step, intra.usecs_beside) == (4.0, 0.25e6, 0.25e6)
    # What a person has set does not count, and no process is started twice.
    assert {"numerics": "exact", "steps_per_execution": None}.items() <= started[0][0].items()
    assert len({repr(changes) for changes, _ in started}) == len(started)
    assert not any(trial.is_open for _, trial in started)


def test_a_candidate_takes_turns_with_the_best_of_its_class_so_far(fake_search):
    speeds = {"compile_update": 2.0, "steps_per_execution": 3.0, "input": 1.5}

    def speed_of(changes):
        defaults = dataclasses.asdict(CONFIG)
        changed = [name for name in speeds if changes[name] != defaults[name]]
        return speeds[changed[-1]] if changed else 1.0

    result, _ = fake_search(speed_of, classes=[Bits.FIT])
    rows = [(one.gain, one.usecs_per_step, one.usecs_beside) for one in result.measurements]
    assert rows[:2] == [(1.0, 2e6, 2e6), (2.0, 1e6, 2e6)]
    assert rows[4:6] == [(1.5, 2e6 / 1.5, 1e6 / 1.5)] * 2
    steps = next(m for m in result.measurements if "steps_per_execution" in m.changes)
    assert (steps.gain, steps.usecs_beside) == (3.0, 1e6)
    assert result.exact == {"compile_update": True, "steps_per_execution": 1}


def test_one_thread_that_is_shown_to_keep_the_bits_of_a_class_is_kept_there(fake_search):
    result, _ = fake_search(
        lambda changes: 2.0 if "intra_op_threads" in changes else 1.0,
        lambda changes: str(changes["jit_compile"]),
    )
    assert result.exact == {"intra_op_threads": 1}
    assert result.xla == {"jit_compile": True, "intra_op_threads": 1}
    assert result.fast == {"intra_op_threads": 1}
    rows = [m for m in result.measurements if "intra_op_threads" in m.changes]
    assert [one.bits for one in rows] == list(Bits)


def test_one_thread_with_other_bits_is_free_and_says_so(fake_search):
    result, _ = fake_search(lambda changes: 2.0 if "intra_op_threads" in changes else 1.0, repr)
    assert (result.exact, result.xla) == ({}, {"jit_compile": True})
    # Of what was tried with numerics=fast: other rows were not.
    assert result.fast == {"intra_op_threads": 1}
    rows = [m for m in result.measurements if "intra_op_threads" in m.changes]
    assert {one.bits for one in rows} == {Bits.FREE}
    assert [one.note for one in rows] == ["has other bits: not kept"] * 2 + [""]
    assert rows[-1].changes["numerics"] == "fast"


def test_what_is_slower_is_not_asked_for_its_bits(fake_search):
    _, started = fake_search(lambda changes: 0.9 if "intra_op_threads" in changes else 1.0)
    assert not any(trial.was_asked for _, trial in started)


def test_processes_end_once_nothing_takes_turns_with_them(fake_search):
    most = 0

    def speed_of(changes):
        nonlocal most
        most = max(most, sum(trial.is_open and trial.in_process for trial in MADE))
        return 2.0 if "intra_op_threads" in changes else 1.0

    MADE.clear()
    fake_search(speed_of, lambda changes: str(changes["jit_compile"]))
    assert most <= 3  # a candidate, the best one, and the defaults


def test_a_process_that_fails_is_started_again_for_the_next_candidate(fake_search, monkeypatch):
    measure, failures = FakeTrial.measure, []

    def fail_once(self, secs=None):
        if self.in_process and not failures:
            failures.append(self)
            raise OSError("no answer for 90 s")
        measure(self, secs)

    monkeypatch.setattr(FakeTrial, "measure", fail_once)
    result, _ = fake_search(lambda changes: 2.0 if "intra_op_threads" in changes else 1.0)
    notes = {repr(one.changes): one.note for one in result.measurements}
    assert notes["{'inter_op_threads': 1}"] == "its process failed: no answer for 90 s"
    assert result.exact == {"intra_op_threads": 1}


def test_only_the_classes_that_are_asked_for_are_searched(fake_search):
    result, _ = fake_search(lambda changes: 1.0, classes=[Bits.XLA])
    defaults, *tried = result.measurements
    assert defaults.changes == {}
    assert all(one.changes["jit_compile"] for one in tried)


def test_a_process_that_fails_is_noted():
    def fail(changes):
        raise OSError("exit code 1")

    result = search.tune(make_state, make_dataset, CONFIG, trial_in_process=fail, max_secs=0)
    notes = [m.note for m in result.measurements if "inter_op_threads" in m.changes]
    assert notes == ["its process failed: exit code 1"]


def test_no_trial_begins_when_no_time_is_left():
    result = search.tune(make_state, make_dataset, CONFIG, max_secs=0)
    assert {one.note for one in result.measurements[1:]} == {"no time was left"}
    assert result.exact == result.xla == result.fast == {}


def test_each_class_has_its_share_of_the_time(fake_search, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(search.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(FakeTrial, "warm_up", lambda self, secs=None: None)
    measure = FakeTrial.measure

    def take_a_second(self, secs=None):
        clock[0] += 1.0
        measure(self, secs)

    monkeypatch.setattr(FakeTrial, "measure", take_a_second)
    result, _ = fake_search(lambda changes: 1.0, max_secs=15.0)  # less than processes take
    measured = {one.bits for one in result.measurements[1:] if one.gain is not None}
    assert measured == set(Bits)
    assert any(one.note == "no time was left" for one in result.measurements)


def test_replicas_are_refused():
    config = engine.TrainConfig(strategy="mirrored", num_replicas=2)
    with pytest.raises(engine.ConfigError, match="one device"):
        tune(make_state, make_dataset, config)


def test_nothing_global_is_left_behind():
    before = keras.config.dtype_policy().name
    tune(make_state, make_dataset, CONFIG)
    assert keras.config.dtype_policy().name == before
    assert tf.distribute.has_strategy() is False
