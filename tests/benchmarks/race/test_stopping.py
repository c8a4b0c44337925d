"""When a race ends, and which ratios it is about."""

import numpy as np
import pytest

from benchmarks.race import stopping
from benchmarks.race.harness import ArmResult

BITS = {
    "engine": "keras_fit",
    "engine_xla": "keras_fit_xla",
    "engine_free": None,
    "engine_resident": None,
    "keras_fit": "keras_fit",
    "keras_fit_tuned": "keras_fit",
    "keras_fit_xla": "keras_fit_xla",
    "jax_scan": None,
}


@pytest.fixture(autouse=True)
def fresh_keras():
    """Replaces conftest's: nothing here runs Keras."""


def arms(*names, secs=()):
    return [
        ArmResult(f"some.{n}", bits_of=BITS[n], is_ceiling=n == "engine_resident", secs=list(secs))
        for n in names
    ]


def pairs(*names):
    found = stopping.pairs_that_matter(arms(*names))
    return [(arm.short_name, over.short_name) for arm, over in found]


def test_arms_with_bits_are_compared_where_the_bits_are_the_same():
    assert pairs("engine", "engine_xla", "keras_fit", "keras_fit_tuned", "keras_fit_xla") == [
        ("engine", "keras_fit"),
        ("engine", "keras_fit_tuned"),
        ("engine_xla", "keras_fit_xla"),
    ]


def test_peers_are_compared_with_all_of_the_engines_arms():
    assert pairs("engine", "engine_xla", "jax_scan") == [
        ("engine", "jax_scan"),
        ("engine_xla", "jax_scan"),
    ]


def test_an_arm_of_free_bits_is_compared_with_all_and_a_ceiling_with_the_engine():
    assert pairs("engine", "engine_free", "engine_resident", "keras_fit", "keras_fit_xla") == [
        ("engine", "engine_resident"),
        ("engine", "keras_fit"),
        ("engine_free", "keras_fit"),
        ("engine_free", "keras_fit_xla"),
    ]


def test_an_arm_that_left_the_race_does_not_matter():
    engine, fit, jax = arms("engine", "keras_fit", "jax_scan")
    jax.fail("not_installed", "no jax")
    assert list(stopping.pairs_that_matter([engine, fit, jax])) == [(engine, fit)]


def reason(engine_secs, num_left=9, *, is_late=False, max_width=0.05):
    engine, fit = arms("engine", "keras_fit", secs=np.ones(len(engine_secs)))
    engine.secs = list(engine_secs)
    return stopping.reason_to_stop(
        [engine, fit], len(engine_secs), num_left, is_late=is_late, max_width=max_width
    )


def test_a_race_ends_once_the_intervals_are_narrow():
    assert reason([0.5] * 10) == "intervals"
    assert reason([0.5, 0.7] * 5) is None
    assert reason([0.5, 0.51] * 5, max_width=0.0) is None
    # Of few rounds it may be so by luck.
    assert reason([0.5] * 9) is None


def test_a_race_ends_at_a_limit_of_time_or_rounds():
    assert reason([0.5, 0.7] * 5, is_late=True) == "max_secs"
    assert reason([0.5, 0.7, 0.5, 0.7], is_late=True) is None
    assert reason([0.5, 0.7], num_left=0) == "num_repeats"


def test_without_a_pair_the_limits_alone_count():
    (fit,) = arms("keras_fit", secs=[1.0] * 10)
    limits = {"is_late": False, "max_width": 0.05}
    assert stopping.reason_to_stop([fit], 10, 9, **limits) is None
