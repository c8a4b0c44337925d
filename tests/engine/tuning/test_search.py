"""Tuning: what is measured, what is chosen of it, and who gets which choice."""

import dataclasses
import json
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.data import pipeline
from gradloop.engine.tuning import choice as tuning
from gradloop.engine.tuning import search as tune_lib
from gradloop.engine.tuning import trial as trial_lib
from gradloop.engine.tuning.choice import Measurement, Tuning


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(tune_lib, "WARM_UP_SECS", 0.05)
    monkeypatch.setattr(tune_lib, "NUM_ROUNDS", 2)
    monkeypatch.setattr(trial_lib, "WINDOW_SECS", 0.02)


def make_state(config):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
    return engine.TrainState(model, "sgd", loss="categorical_crossentropy")


def make_dataset(config):
    x = np.random.default_rng(0).random((64, 4), dtype=np.float32)
    y = (x[:, 0] > 0.5).astype(np.int64)
    return pipeline.make_dataset(x, y, global_batch_size=8, num_classes=2, prefetch=config.prefetch)


def keep(config, **choices):
    return Tuning(**choices).save(config)


CONFIG = engine.TrainConfig(model="dense")


class TestChoice:
    def test_exact_runs_take_only_what_keeps_bits(self):
        keep(CONFIG, exact={"steps_per_execution": 32}, fast={"jit_compile": "loop"})
        config, path = tuning.apply_choice(CONFIG, chosen=())
        assert config == dataclasses.replace(CONFIG, steps_per_execution=32)
        assert path == tuning.choice_path(CONFIG)

    def test_fast_runs_take_the_other(self):
        keep(CONFIG, exact={"steps_per_execution": 32}, fast={"jit_compile": "loop"})
        fast = dataclasses.replace(CONFIG, numerics="fast")
        config, _ = tuning.apply_choice(fast, chosen=())
        assert config == dataclasses.replace(fast, jit_compile="loop")

    def test_what_a_person_sets_wins(self):
        keep(CONFIG, exact={"steps_per_execution": 32})
        config, path = tuning.apply_choice(CONFIG, chosen={"steps_per_execution"})
        assert (config, path) == (CONFIG, None)

    @pytest.mark.parametrize(
        "change", [{"global_batch_size": 32}, {"model": "cnn"}, {"dataset": "fashion_mnist"}]
    )
    def test_another_run_has_no_choice(self, change):
        keep(CONFIG, exact={"steps_per_execution": 32})
        other = dataclasses.replace(CONFIG, **change)
        assert tuning.apply_choice(other, chosen=()) == (other, None)

    @pytest.mark.parametrize("text", ["", "[]", '{"exact": {"nonsense": 1}}', '{"exact": 3}'])
    def test_a_file_that_cannot_be_used_is_named(self, text):
        path = keep(CONFIG)
        path.write_text(text)
        with pytest.raises(engine.ConfigError, match="run --tune again, or delete the file"):
            tuning.apply_choice(CONFIG, chosen=())

    def test_gains_within_noise_are_not_chosen(self):
        def measured(gain, is_sure=True):
            return Measurement({"prefetch": 1}, gain, 1.0, changes_bits=False, is_sure=is_sure)

        assert tuning.best_of([measured(1.02), measured(None)]) == {}
        assert tuning.best_of([measured(1.02), measured(1.2)]) == {"prefetch": 1}
        assert tuning.best_of([measured(1.2, is_sure=False)]) == {}
        assert tuning.best_of([]) == {}


@pytest.mark.usefixtures("quick")
class TestTune:
    def test_every_trial_is_in_the_table_with_what_it_does_to_the_bits(self):
        result = tune_lib.tune(make_state, make_dataset, CONFIG)
        changes = [one.changes for one in result.measurements]
        assert changes[0] == {}
        assert {"steps_per_execution": 1} in changes
        assert {"numerics": "fast", "jit_compile": "loop"} in changes
        for one in result.measurements:
            assert one.changes_bits == ("numerics" in one.changes)
            assert one.gain is not None or one.note
        assert not {"numerics", "jit_compile", "precision"} & result.exact.keys()
        json.dumps(dataclasses.asdict(result))
        assert "others" in result.to_table()

    def test_a_planted_slow_choice_is_not_taken_and_a_hopeless_one_given_up(self, monkeypatch):
        real = trial_lib.Trial._run_for

        def run_for(self, secs):
            if self.is_slow:
                time.sleep(0.2)
                return 1.0, 1.0
            return real(self, secs)

        def slow_if_streamed(*args, **kwargs):
            trial = trial_lib.Trial(*args, **kwargs)
            trial.is_slow = not kwargs["resident"]
            return trial

        monkeypatch.setattr(tune_lib, "Trial", slow_if_streamed)
        monkeypatch.setattr(trial_lib.Trial, "_run_for", run_for)
        result = tune_lib.tune(make_state, make_dataset, CONFIG)
        assert "input" not in result.exact
        (one, _) = (m for m in result.measurements if m.changes.get("input") == "streamed")
        assert "given up" in one.note

    def test_no_trial_begins_when_no_time_is_left(self):
        result = tune_lib.tune(make_state, make_dataset, CONFIG, max_secs=0)
        notes = {one.note for one in result.measurements[:1]} | {
            one.note for one in result.measurements if one.changes
        }
        assert "no time was left" in notes
        assert result.exact == {}

    def test_replicas_are_refused(self):
        config = engine.TrainConfig(strategy="mirrored", num_replicas=2)
        with pytest.raises(engine.ConfigError, match="one device"):
            tune_lib.tune(make_state, make_dataset, config)

    def test_nothing_global_is_left_behind(self):
        before = keras.config.dtype_policy().name
        tune_lib.tune(make_state, make_dataset, CONFIG)
        assert keras.config.dtype_policy().name == before
        assert tf.distribute.has_strategy() is False
