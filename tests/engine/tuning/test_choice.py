"""Choices: what is chosen of what was measured, and which runs take it."""

import dataclasses

import pytest

from gradloop import engine
from gradloop.engine.tuning.choice import (
    Measurement,
    Tuning,
    apply_choice,
    best_of,
    choice_path,
)

CONFIG = engine.TrainConfig()
KEY = {"model": "dense", "dataset": "mnist", "global_batch_size": 64}
WITH_XLA = {"jit_compile": True, "jit_scope": "loop"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def keep(**choices):
    return Tuning(**choices).save(KEY)


def test_exact_runs_take_only_what_keeps_bits():
    keep(exact={"steps_per_execution": 32}, fast=WITH_XLA)
    config, path = apply_choice(CONFIG, KEY, chosen=())
    assert config == dataclasses.replace(CONFIG, steps_per_execution=32)
    assert path == choice_path(KEY)


def test_fast_runs_take_the_other():
    keep(exact={"steps_per_execution": 32}, fast=WITH_XLA)
    fast = dataclasses.replace(CONFIG, numerics="fast")
    config, _ = apply_choice(fast, KEY, chosen=())
    assert config == dataclasses.replace(fast, **WITH_XLA)


def test_what_a_person_sets_wins():
    keep(exact={"steps_per_execution": 32})
    config, path = apply_choice(CONFIG, KEY, chosen={"steps_per_execution"})
    assert (config, path) == (CONFIG, None)


@pytest.mark.parametrize(
    "change", [{"global_batch_size": 32}, {"model": "cnn"}, {"dataset": "fashion_mnist"}]
)
def test_another_run_has_no_choice(change):
    keep(exact={"steps_per_execution": 32})
    assert apply_choice(CONFIG, KEY | change, chosen=()) == (CONFIG, None)


@pytest.mark.parametrize("text", ["", "[]", '{"exact": {"nonsense": 1}}', '{"exact": 3}'])
def test_a_file_that_cannot_be_used_is_named(text):
    path = keep()
    path.write_text(text)
    with pytest.raises(engine.ConfigError, match="run --tune again, or delete the file") as error:
        apply_choice(CONFIG, KEY, chosen=())
    assert str(path) in str(error.value)


def test_gains_within_noise_are_not_chosen():
    def measured(gain, is_sure=True):
        return Measurement({"prefetch": 1}, gain, 1.0, changes_bits=False, is_sure=is_sure)

    assert best_of([measured(1.02), measured(None)]) == {}
    assert best_of([measured(1.02), measured(1.2)]) == {"prefetch": 1}
    assert best_of([measured(1.2, is_sure=False)]) == {}
    assert best_of([]) == {}
