"""The roof is measured; what a data sheet says is found by the driver's name for the device."""

import time

import pytest
import tensorflow as tf

from benchmarks.hardware import data_sheets, roof


def test_measures_in_the_time_that_it_is_given():
    started_at = time.perf_counter()
    found = roof.measure_roof(
        ("float32", "bfloat16"), secs=0.2, sizes=(32, 64, 128), copy_bytes=2**20
    )
    assert time.perf_counter() - started_at < 30
    assert set(found) == {"matmul_flops_per_sec", "copy_bytes_per_sec"}
    assert set(found["matmul_flops_per_sec"]) == {"float32", "bfloat16"}
    # A machine of the last twenty years does more than 10 million multiplications a second.
    assert min(found["matmul_flops_per_sec"].values()) > 1e7
    assert found["copy_bytes_per_sec"] > 1e7


def test_the_peak_is_the_best_size(monkeypatch):
    secs = {32: 1.0, 64: 2.0, 128: 100.0}
    monkeypatch.setattr(roof, "_matmul", lambda precision, size: size)
    monkeypatch.setattr(roof, "_median_secs", lambda size, share: secs[size])
    monkeypatch.setattr(roof, "_MIN_CALLS", 0)  # the size that takes long is tried too
    assert roof._matmul_peak("float32", 9.0, (32, 64, 128)) == 2 * 64**3 / 2.0


def test_a_size_that_would_take_too_long_is_left_out(monkeypatch):
    tried = []
    monkeypatch.setattr(roof, "_matmul", lambda precision, size: size)
    monkeypatch.setattr(roof, "_median_secs", lambda size, share: tried.append(size) or 1.0)
    roof._matmul_peak("float32", 6.0, (32, 4096))
    assert tried == [32]


def test_tf32_is_switched_on_for_its_own_measurement_only(monkeypatch):
    seen = []
    is_enabled = tf.config.experimental.tensor_float_32_execution_enabled
    before = is_enabled()
    monkeypatch.setattr(roof, "_median_secs", lambda call, secs: seen.append(is_enabled()) or 1.0)
    for precision in ("tf32", "float32"):
        roof._matmul_peak(precision, 1.0, (8,))
    assert seen == [True, False]
    assert is_enabled() == before


@pytest.mark.parametrize(
    ("device", "title"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB SXM"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB PCIe"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-16GB", "V100 SXM2"),
    ],
)
def test_the_driver_s_name_finds_the_sheet(device, title):
    sheet = data_sheets.find(device)
    assert sheet is not None
    assert sheet.title == title


@pytest.mark.parametrize("device", ["NVIDIA GeForce RTX 4090", "AMD Instinct MI300X", "", None])
def test_an_unknown_device_has_no_sheet(device):
    assert data_sheets.find(device) is None


def test_a_precision_that_the_gpu_lacks_has_no_peak():
    sheet = data_sheets.find("Tesla T4")
    assert sheet.flops_per_sec("mixed_float16") == 65e12
    assert sheet.flops_per_sec("tf32") is None
