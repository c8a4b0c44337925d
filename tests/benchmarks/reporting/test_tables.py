"""Numbers and verdicts in tables."""

import pytest

from benchmarks.reporting import other_tables, tables


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (0.0123456, "0.0123"), (5.7, "5.70"), (12.34, "12.3"), (999.6, "1,000"),
     (1234567, "1,230,000")],
)  # fmt: skip
def test_three_digits(value, text):
    assert tables.number(value) == text


def test_flat_is_the_dearest_over_the_smallest():
    assert other_tables.flatness(
        [{"ratio": 1.0}, {"ratio": 1.02}, {"ratio": 1.01}]
    ) == pytest.approx(0.02)
    assert "reached" in other_tables.flatness_line(0.029)
    assert "missed by 1.0 %" in other_tables.flatness_line(0.04)


def test_inference_beside_keras_s_and_no_ratio_where_the_interval_is_too_wide():
    speeds = {name: {"median": 1000.0} for name in ("engine", "keras", "keras_tuned")}
    narrow = {"median": 2.5, "low": 2.4, "high": 2.6, "verdict": "faster"}
    wide = {"median": 1.5, "low": 1.0, "high": 2.0, "verdict": "too wide"}
    made = {"inference": {"predict": speeds | {"ratio": narrow, "ratio_tuned": wide}}}
    *_, row = other_tables.inference_table(made).splitlines()
    assert row.endswith("| 1,000 | 2.50 (2.40 to 2.60) | - (1.00 to 2.00) |")
