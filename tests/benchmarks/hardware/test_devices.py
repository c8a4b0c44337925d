"""The name of the machine in records and files."""

import pytest

from benchmarks.hardware import devices
from gradloop.machine import num_cores


@pytest.mark.parametrize(
    ("gpus", "name"),
    [(["NVIDIA H100 80GB HBM3"], "nvidia-h100-80gb-hbm3"), (["Tesla T4 "] * 2, "tesla-t4"),
     ([], "gpu")],
)  # fmt: skip
def test_a_gpu_is_in_the_name(gpus, name, monkeypatch):
    monkeypatch.setattr(devices, "find_gpus", lambda: gpus)
    assert devices.short_name("gpu") == name


def test_a_cpu_is_named_by_its_cores():
    assert devices.short_name("cpu") == f"cpu{num_cores()}"
