"""The slope of memory on samples whose slope is known, and what is taken for a leak."""

import numpy as np
import pytest

from gradloop.engine.memory import (
    MemoryWatch,
    format_growth,
    is_growing,
    memory_slope,
    resident_bytes,
)

MIB = 2**20
STEPS = range(0, 4000, 100)


def noisy(function, scale=MIB):
    noise = np.random.default_rng(0).normal(scale=scale, size=len(STEPS))
    return [(s, int(function(s) + n)) for s, n in zip(STEPS, noise, strict=True)]


LEAK = noisy(lambda step: 500 * MIB + 50_000 * step)
STEADY = noisy(lambda step: 500 * MIB, scale=8 * MIB)
CACHE = noisy(lambda step: 500 * MIB + 200 * MIB * min(step, 2000) / 2000)
WARM_UP = noisy(lambda step: 500 * MIB + 300 * MIB * min(step, 500) / 500)
SMALL = noisy(lambda step: 500 * MIB + 1000 * step, scale=1000)


def test_slope_of_a_line_is_its_slope():
    assert memory_slope([(s, 7 * s + 3) for s in STEPS]) == pytest.approx(7)
    assert memory_slope(LEAK) == pytest.approx(50_000, rel=0.05)
    assert abs(memory_slope(STEADY)) < 5000


def test_warm_up_is_left_out():
    assert abs(memory_slope(WARM_UP)) < 1000


@pytest.mark.parametrize("samples", [[], [(1, 5)], [(1, 5), (2, 6)], [(3, 5)] * 9])
def test_too_few_samples_have_no_slope(samples):
    assert memory_slope(samples) is None
    assert not is_growing(samples)


def test_only_a_leak_is_suspicious():
    assert is_growing(LEAK)
    for samples in (STEADY, CACHE, WARM_UP, SMALL, LEAK[:7]):
        assert not is_growing(samples)


def test_words_are_for_a_leak_only():
    found = {"slope_bytes_per_step": 50_000.4, "is_growing": True}
    assert "growing by 50,000 bytes a step" in format_growth(found)
    assert format_growth(found | {"is_growing": False}) == format_growth({}) == ""


def test_samples_are_a_second_apart():
    now = iter(np.arange(0, 100, 0.25))
    watch = MemoryWatch(lambda: 10**6, lambda: next(now))
    for step in range(1, 41):
        watch.sample(step)
    steps = [step for step, _ in watch.samples]
    assert steps == list(range(1, 41, 4))
    assert watch.to_dict()["num_samples"] == len(steps)


def test_a_long_run_keeps_few_samples():
    now = iter(range(10**6))
    watch = MemoryWatch(lambda: 1, lambda: next(now))
    for step in range(20_000):
        watch.sample(step)
    assert 1000 < len(watch.samples) <= 4096
    assert watch.samples[-1][0] > 19_000


def test_what_the_system_says():
    assert resident_bytes() is None or resident_bytes() > 10 * MIB
    found = MemoryWatch().to_dict()
    assert found["peak_bytes"] > 10 * MIB
    assert (found["slope_bytes_per_step"], found["is_growing"]) == (None, False)


def test_where_memory_is_not_told_there_are_no_samples():
    now = iter(range(100))
    watch = MemoryWatch(lambda: None, lambda: next(now))
    for step in range(10):
        watch.sample(step)
    assert watch.to_dict()["num_samples"] == 0
