"""The driver's name for a device finds its data sheet."""

import pytest

from benchmarks.hardware import data_sheets


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
