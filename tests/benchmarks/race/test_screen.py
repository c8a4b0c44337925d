"""What a person sees at the end of a race."""

from benchmarks.race import screen
from benchmarks.race.harness import Plan
from benchmarks.reporting import records
from tests.benchmarks.reporting.made_up import CIRCUMSTANCES, TASK, outcome, result, results


def test_the_table_shows_no_speed_of_a_void_arm():
    text = screen.to_text(records.make_record(TASK, Plan(), outcome(results()), {}, CIRCUMSTANCES))
    rows = [line.split() for line in text.splitlines()]
    assert ["engine", "48,000"] in [row[:2] for row in rows]
    assert ["engine", "over", "keras_fit", "5.00", "(4.00"] in [row[:5] for row in rows]
    assert "tf_loop: void: a planted fault" in text
    assert "jax_scan: not installed: No module named 'jax'" in text
    assert "28,800" not in text  # the void arm's speed
    assert "ended by the limit of rounds" in text


def test_a_ratio_with_a_wide_interval_names_no_winner():
    arms = [result("engine", [0.5, 0.75, 0.6]), result("keras_fit", [3.0, 3.0, 3.0])]
    text = screen.to_text(records.make_record(TASK, Plan(), outcome(arms), {}, CIRCUMSTANCES))
    assert "too wide: no verdict above 20 %" in text
    assert "faster" not in text
