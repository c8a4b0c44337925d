"""A chart is up to date if it shows what its record says."""

from benchmarks.reporting import charts
from tests.benchmarks.reporting.made_up import arm, record

ARMS = {"engine": arm(1180.0), "keras_fit": arm(1000.0)}


def test_the_digest_depends_on_what_is_drawn_and_on_nothing_else():
    one = record(ARMS)
    assert charts.digest(one) == charts.digest(record(ARMS, command="another"))
    assert charts.digest(one) != charts.digest(record(ARMS | {"engine": arm(1181.0)}))
