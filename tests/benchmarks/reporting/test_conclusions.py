"""The conclusions follow from the verdicts of the records."""

from benchmarks.reporting import conclusions
from tests.benchmarks.reporting.made_up import arm, ratio, record


def conclude(**ratios):
    """Returns the conclusions from the ratios of the engine over other arms, by workload."""
    records = {}
    for workload, overs in ratios.items():
        arms = {over: arm(1.0) for over, _, _ in overs}
        found = [ratio("engine", over, median, verdict=verdict) for over, median, verdict in overs]
        records[workload] = record({"engine": arm(1.0), **arms}, ratios=found)
    return conclusions.conclude(records)


def test_the_engine_over_fit():
    text = conclude(
        tiny=[("keras_fit", 7.316, "faster"), ("keras_fit_tuned", 3.764, "faster")],
        dense=[("keras_fit", 2.892, "faster"), ("keras_fit_tuned", 0.9, "slower")],
        cnn=[("keras_fit", 1.738, "faster"), ("keras_fit_tuned", 0.992, "undecided")],
    )
    fit, tuned, _ = text.splitlines()
    assert fit == (
        "Compared with `keras_fit`, `engine` is faster on tiny (7.32x), dense (2.89x) and "
        "cnn (1.74x)."
    )
    assert tuned == (
        "Compared with `keras_fit_tuned`, `engine` is faster on tiny (3.76x); slower on dense "
        "(0.9x); not clearly different on cnn (0.992x)."
    )


def test_the_arm_that_is_furthest_ahead_of_the_engine():
    text = conclude(
        tiny=[
            ("tf_loop", 0.5, "slower"),
            ("jax_scan", 0.4, "slower"),
            ("jax_step", 0.1, "undecided"),
        ],
        cnn=[("tf_loop", 0.8, "undecided")],
        lstm=[("torch_eager", 1.4, "faster")],
    )
    assert text == (
        "Furthest ahead of `engine`, without fit's bits: `jax_scan` on tiny (2.50x); no arm is "
        "clearly faster than `engine` on cnn and lstm."
    )


def test_an_arm_with_the_bits_of_fit_is_not_said_to_lack_them():
    made = record(
        {"engine": arm(1.0), "keras_fit_tuned": arm(2.0) | {"claims_bits": True}},
        ratios=[ratio("engine", "keras_fit_tuned", 0.5, verdict="slower")],
    )
    text = conclusions.conclude({"cnn": made})
    assert "Furthest ahead of `engine`: `keras_fit_tuned` on cnn (2.00x)." in text


def test_a_bound_that_trains_on_other_data_is_not_ahead():
    made = record(
        {"engine": arm(1.0), "engine_resident": arm(2.0) | {"is_ceiling": True}},
        ratios=[ratio("engine", "engine_resident", 0.5, verdict="slower")],
    )
    assert conclusions.conclude({"cnn": made}) == "No arm is clearly faster than `engine` on cnn."


def test_ratios_of_other_arms_say_nothing_about_the_engine():
    arms = {"keras_fit": arm(1.0), "tf_loop": arm(2.0)}
    made = record(arms, ratios=[ratio("keras_fit", "tf_loop", 0.5, verdict="slower")])
    assert conclusions.conclude({"cnn": made}) == ""
