"""Numbers and verdicts in tables."""

import pytest

from benchmarks.reporting import tables


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (0.0123456, "0.0123"), (5.7, "5.70"), (12.34, "12.3"), (999.6, "1,000"),
     (1234567, "1,230,000")],
)  # fmt: skip
def test_three_digits(value, text):
    assert tables.number(value) == text


def test_flat_is_the_dearest_over_the_cheapest():
    assert tables.flatness([10.0, 10.2, 10.1]) == pytest.approx(0.02)
    assert "reached" in tables.flatness_line(0.029)
    assert "missed by 1.0 %" in tables.flatness_line(0.04)
