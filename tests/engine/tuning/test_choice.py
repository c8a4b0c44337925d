"""Choices: what is chosen of what was measured, and which runs take it."""

import dataclasses

import pytest

from gradloop import engine
from gradloop.engine.tuning.choice import (
    Bits,
    Measurement,
    Tuning,
    apply_choice,
    choice_path,
    choose,
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


@pytest.mark.parametrize("other", [{"on_nonfinite": "skip"}, {"run_eagerly": True}])
def test_a_choice_that_the_run_cannot_have_is_left_out(other):
    keep(exact={"compile_update": True})
    config = dataclasses.replace(CONFIG, **other)
    assert apply_choice(config, KEY, chosen=other) == (config, None)


def test_runs_compiled_by_xla_take_the_choice_of_their_class():
    keep(exact={"steps_per_execution": 32}, xla=WITH_XLA)
    compiled = dataclasses.replace(CONFIG, jit_compile=True)
    config, _ = apply_choice(compiled, KEY, chosen={"jit_compile"})
    assert config == dataclasses.replace(compiled, jit_scope="loop")


MAY_CHANGE = {"intra_op_threads": 1, "narrow_products": True}


def test_what_may_change_bits_is_of_runs_in_which_it_was_shown_not_to():
    keep(exact={"intra_op_threads": 1}, xla=WITH_XLA | MAY_CHANGE, fast={"intra_op_threads": 1})
    compiled = dataclasses.replace(CONFIG, jit_compile=True)
    config, _ = apply_choice(compiled, KEY, chosen={"jit_compile"})
    assert config == dataclasses.replace(compiled, jit_scope="loop", **MAY_CHANGE)
    # By steps, it was not shown.
    assert apply_choice(compiled, KEY, chosen={"jit_compile", "jit_scope"}) == (compiled, None)
    assert apply_choice(CONFIG, KEY, chosen=(), may_differ=True) == (CONFIG, None)
    fast = dataclasses.replace(CONFIG, numerics="fast")
    config, _ = apply_choice(fast, KEY, chosen={"numerics"}, may_differ=True)
    assert config == dataclasses.replace(fast, intra_op_threads=1)


@pytest.mark.parametrize(
    ("changes", "bits"),
    [
        ({}, Bits.FIT),
        ({"steps_per_execution": 1, "inter_op_threads": 1}, Bits.FIT),
        ({"jit_compile": True}, Bits.XLA),
        (WITH_XLA, Bits.XLA),
        ({"jit_compile": True, "jit_scope": "update"}, Bits.FREE),
        (WITH_XLA | {"numerics": "fast"}, Bits.FREE),
        ({"precision": "mixed_bfloat16"}, Bits.FREE),
        ({"intra_op_threads": 1}, Bits.FREE),
    ],
)
def test_changes_are_of_a_class_of_bits(changes, bits):
    assert Bits.of(changes) is bits


def test_threads_do_not_count_once_they_are_shown_to_keep_bits():
    for changes, bits in (({}, Bits.FIT), (WITH_XLA, Bits.XLA), ({"numerics": "fast"}, Bits.FREE)):
        changed = {**changes, "intra_op_threads": 1}
        assert Measurement(changed, keeps_bits=True).bits is bits
        assert Measurement(changed).bits is Bits.FREE


def row(gain, low=None, high=None, **changes):
    return Measurement(changes, gain, low or gain, high or gain, 100 / gain, 100.0)


AS_IT_IS = row(1.0)


def test_the_fastest_row_is_kept():
    fastest = row(1.5, 1.4, 1.6, input="streamed", prefetch=16)
    others = [AS_IT_IS, row(1.2, 1.1, 1.3, input="streamed"), Measurement({"x": 1}, note="failed")]
    assert choose([*others, fastest]) == ({"input": "streamed", "prefetch": 16}, "")
    assert choose([]) == ({}, "")


@pytest.mark.parametrize(
    "fastest",
    [
        row(1.02, 1.01, 1.03, steps_per_execution=1),  # clear, and not worth a setting
        row(1.5, 0.99, 1.8, steps_per_execution=1),  # its quartiles reach those of the defaults
    ],
)
def test_a_tie_with_a_simpler_setting_keeps_the_fastest_and_says_so(fastest):
    changes, note = choose([AS_IT_IS, fastest])
    assert changes == fastest.changes
    assert note == "within noise of the defaults"
    table = Tuning([AS_IT_IS, fastest], exact=changes, notes={"exact": note}).to_table()
    assert f"kept, bits fit: steps_per_execution=1 ({note})" in table


def test_a_tie_of_equally_simple_ones_is_not_worth_a_note():
    rows = [row(1.5, 1.3, 1.7, steps_per_execution=1), row(1.6, 1.4, 1.8, steps_per_execution=32)]
    assert choose([AS_IT_IS, *rows]) == ({"steps_per_execution": 32}, "")


def test_a_class_in_which_nothing_was_measured_says_why():
    assert choose([Measurement({"x": 1}, note="given up: 4.0 times slower")]) == (
        {}, "given up: 4.0 times slower",
    )  # fmt: skip


def test_the_columns_of_the_table_agree_with_one_another():
    (_, line, *_) = Tuning([row(1.25, 1.2, 1.3, input="streamed")]).to_table().splitlines()
    assert " ".join(line.split()) == "input=streamed 80 100 1.25 x (1.20 to 1.30) fit"
