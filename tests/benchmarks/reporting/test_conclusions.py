"""The conclusions, and the table of ratios, follow from the races."""

from benchmarks.reporting import conclusions
from tests.benchmarks.reporting.made_up import arm, races_of, ratio, record


def made(workload, *ratios, **values):
    """Returns a record with these ratios, and arms as fast as they say."""
    arms = {}
    for found in ratios:
        arms.setdefault(found["arm"], arm(100.0))
        arms.setdefault(found["over"], arm(100.0 / found["median"]))
    bits_of = {"engine": "keras_fit", "engine_tuned": "keras_fit", "engine_xla": "keras_fit_xla"}
    for name, bits in bits_of.items():
        if name in arms:
            arms[name]["bits_of"] = bits
    return record(arms | values.pop("arms", {}), workload=workload, ratios=ratios, **values)


TINY = made(
    "tiny",
    ratio("engine", "keras_fit", 7.316),
    ratio("engine", "keras_fit_tuned", 3.764),
    ratio("engine_xla", "keras_fit_xla", 8.5),
)
DENSE = made("dense", ratio("engine", "keras_fit", 2.892), ratio("engine_xla", "keras_fit_xla", 2))


def test_the_first_line_is_over_fit_with_the_bits_of_xla_and_the_second_over_fit():
    first, second, third, _ = conclusions.conclude(races_of(TINY, DENSE)).splitlines()
    assert first == (
        "With all bits of `fit(jit_compile=True)`, `engine_xla` trains 8.50 times as fast as that "
        "tuned fit on tiny and 2.00 times on dense."
    )
    assert second == (
        "With all bits of `fit`, `engine` trains 7.32 times as fast as `fit` on tiny and 2.89 "
        "times on dense."
    )
    assert third.endswith("trains 3.76 times as fast as tuned `fit` on tiny.")


def test_the_tuned_engine_has_a_line_and_a_row_of_its_own():
    races = races_of(made("tiny", ratio("engine_tuned", "keras_fit_tuned", 2.5)))
    assert conclusions.conclude(races).startswith(
        "With all bits of `fit`, `engine_tuned` trains 2.50 times as fast as tuned `fit` on tiny."
    )
    cells = conclusions.ratios_table(races).splitlines()[-1].strip("| ").split(" | ")
    assert cells[:5] == ["tiny", "`fit`", "`engine_tuned`", "-", "2.50 (2.38 to 2.62)"]


def test_an_arm_that_is_ahead_of_all_of_the_engine_s_is_named():
    slow = made("lstm", ratio("engine_free", "torch_compile", 0.8), ratio("engine", "tf_loop", 1.0))
    text = conclusions.conclude(races_of(DENSE, slow))
    assert text.endswith(
        "Ahead of the fastest of the engine's arms: `torch_compile` on lstm (1.25 times its speed)."
    )
    level = made("lstm", ratio("engine", "tf_loop", 0.98))
    text = conclusions.conclude(races_of(level))
    assert text == "No arm is clearly faster than the fastest of the engine's on lstm."
    wide = made("lstm", ratio("engine", "tf_loop", 0.98, 0.5, 1.5, "too wide"))
    assert conclusions.conclude(races_of(wide)) == ""


def test_a_bound_that_trains_on_other_data_stands_for_no_arm():
    bound = arm(9999.0) | {"is_ceiling": True}
    found = [ratio("engine", "tf_loop", 0.5), ratio("engine_resident", "tf_loop", 1.5)]
    assert "`tf_loop` on cnn" in conclusions.conclude(
        races_of(made("cnn", *found, arms={"engine_resident": bound}))
    )


def test_the_table_has_a_row_a_class_of_bits_and_the_range_of_the_runs():
    again = made("dense", ratio("engine", "keras_fit", 2.5), date="2026-11-29")
    wide = ratio("engine_free", "keras_fit", 4.0, 2.0, 8.0, "too wide")
    text = conclusions.ratios_table(races_of(TINY, DENSE, again, made("cnn", wide)))
    lines = [line.strip("| ").split(" | ") for line in text.splitlines()]
    assert ["tiny", "`fit`", "`engine`", "7.32 (6.95 to 7.68)", "3.76 (3.58 to 3.95)", "1"] in lines
    assert ["dense", "`fit`", "`engine`", "2.70 (2.50 to 2.89)", "-", "2"] in lines
    assert ["cnn", "free", "`engine_free`", "2.00 to 8.00, too wide", "-", "-"] in lines


def test_where_one_of_two_ratios_is_too_wide_its_interval_stands_alone():
    wide = ratio("engine_free", "keras_fit", 4.0, 2.0, 8.0, "too wide")
    races = races_of(made("cnn", wide, ratio("engine_free", "keras_fit_tuned", 1.5)))
    cells = conclusions.ratios_table(races).splitlines()[-1].strip("| ").split(" | ")
    assert cells[3:5] == ["2.00 to 8.00, too wide", "1.50 (1.42 to 1.58)"]


def test_what_is_free_is_held_against_fit_in_float32_and_the_best_tuned_fit():
    half = made(
        "cnn",
        ratio("engine_free", "keras_fit", 1.5),
        ratio("engine_free", "keras_fit_float32", 3.0),
        ratio("engine_free", "keras_fit_tuned", 1.4),
        ratio("engine_free", "keras_fit_xla", 1.2),
    )
    (_, _, row) = conclusions.ratios_table(races_of(half)).splitlines()
    assert "| 3.00 (2.85 to 3.15), of float32 | 1.20 (1.14 to 1.26) |" in row


def test_where_fit_s_own_bits_vary_none_are_claimed():
    varying = made("resnet50", ratio("engine", "keras_fit", 1.1))
    varying["arms"]["engine"]["bits_of"] = None
    assert "With all bits" not in conclusions.conclude(races_of(varying))
    (_, _, row) = conclusions.ratios_table(races_of(varying)).splitlines()
    assert row.startswith("| resnet50 | none: fit's own vary | `engine` | 1.10 ")


def test_an_arm_of_fewer_bits_says_so_and_is_not_held_against_peers():
    run = made("wide", ratio("engine_free", "keras_fit", 2.0), ratio("engine", "tf_loop", 0.8))
    run["arms"]["engine_free"]["settings"] = {"precision": "mixed_bfloat16"}
    run["arms"]["engine_free"]["images_per_sec"]["median"] = 1e6
    raced = races_of(run)
    assert conclusions.conclude(raced).endswith("`tf_loop` on wide (1.25 times its speed).")
    assert "| free, mixed_bfloat16 | `engine_free` |" in conclusions.ratios_table(raced)
