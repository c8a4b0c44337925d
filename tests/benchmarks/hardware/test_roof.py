"""The roof is measured, in about the time that it is given."""

import time

import tensorflow as tf

from benchmarks.hardware import roof


def test_measures_in_the_time_that_it_is_given():
    started_at = time.perf_counter()
    found = roof.measure_roof(
        ("float32", "float32_xla", "bfloat16"), secs=0.2, sizes=(32, 64, 128), copy_bytes=2**20
    )
    assert time.perf_counter() - started_at < 30
    assert set(found) == {"matmul_flops_per_sec", "copy_bytes_per_sec"}
    assert set(found["matmul_flops_per_sec"]) == {"float32", "float32_xla", "bfloat16"}
    # A machine of the last twenty years does more than 10 million multiplications per second.
    assert min(found["matmul_flops_per_sec"].values()) > 1e7
    assert found["copy_bytes_per_sec"] > 1e7


def test_the_peak_is_the_best_size():
    # Much time, so that the size that takes long is tried too.
    secs = iter([1.0, 2.0, 100.0])
    found = roof.matmul_peak("float32", 1e9, (32, 64, 128), lambda call, share: next(secs))
    assert found == 2 * 64**3 / 2.0
    assert list(secs) == []


def test_a_size_that_would_take_too_long_is_left_out():
    secs = iter([1.0, 1.0])
    roof.matmul_peak("float32", 6.0, (32, 4096), lambda call, share: next(secs))
    assert list(secs) == [1.0]


def test_tf32_is_switched_on_for_its_own_measurement_only():
    seen = []
    is_enabled = tf.config.experimental.tensor_float_32_execution_enabled
    before = is_enabled()
    for precision in ("tf32", "float32"):
        roof.matmul_peak(precision, 1.0, (8,), lambda call, secs: seen.append(is_enabled()) or 1.0)
    assert seen == [True, False]
    assert is_enabled() == before
