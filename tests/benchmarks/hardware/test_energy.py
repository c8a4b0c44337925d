"""Energy counters, faked as files."""

import pytest

from benchmarks.hardware.energy import EnergyMeter


@pytest.fixture
def root(tmp_path):
    for name, energy in {"intel-rapl:0": 1_000, "intel-rapl:0:0": 5, "intel-rapl:1": 9_000}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{energy}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("10000\n")
    return tmp_path


def test_packages_add_up_and_counters_wrap(root):
    meter = EnergyMeter(root)
    before = meter.read()
    (root / "intel-rapl:0" / "energy_uj").write_text("3000")
    (root / "intel-rapl:0:0" / "energy_uj").write_text("800")  # inside package 0
    (root / "intel-rapl:1" / "energy_uj").write_text("500")  # 1,500 further, past 10,000
    assert meter.works
    assert meter.joules_since(before) == pytest.approx(0.0035)


def test_a_machine_that_does_not_tell_gives_none(tmp_path):
    meter = EnergyMeter(tmp_path)
    assert not meter.works
    assert meter.joules_since(meter.read()) is None


def test_a_counter_that_fails_in_between_gives_none(root):
    meter = EnergyMeter(root)
    before = meter.read()
    (root / "intel-rapl:1" / "energy_uj").unlink()
    assert meter.joules_since(before) is None
