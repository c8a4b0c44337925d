"""The benchmark of the custom steps: a quick run of one, its record, and its table."""

import json

import pytest

from benchmarks import gallery
from benchmarks.reporting import other_tables, records

FEW = ["--num_batches", "3", "--min_secs", "0", "--max_secs", "0"]


@pytest.mark.slow
def test_a_run_writes_its_record_and_prints_its_table(capsys, tmp_path):
    path = tmp_path / "one.json"
    flags = ["--sections", "Mixup", *FEW, "--output", str(path)]
    assert gallery.main(flags) == 0
    record = json.loads(path.read_text())
    assert record["command"] == f"python -m benchmarks.gallery {' '.join(flags)}"
    assert records.name_of(record) == "gallery"
    (found,) = record["gallery"].values()
    assert found["num_rounds"] >= 5
    for arm in ("engine", "streamed", "bare"):
        assert 0 < found[arm]["quartile_1"] <= found[arm]["median"] <= found[arm]["quartile_3"]
    for ratio in ("ratio", "ratio_streamed"):
        assert found[ratio]["low"] <= found[ratio]["median"] <= found[ratio]["high"]
    assert other_tables.gallery_table(record) in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--num_batches", "--global_batch_size"])
def test_a_number_that_is_too_small_is_one_line(capsys, flag):
    assert gallery.main(["--sections", "Mixup", flag, "0"]) == 2
    assert f"{flag} 0: must be 1 or more" in capsys.readouterr().err


def test_no_ratio_is_named_where_the_interval_is_too_wide():
    speed = {"median": 1000.0, "quartile_1": 990.0, "quartile_3": 1010.0}
    narrow = {"median": 1.1, "low": 1.08, "high": 1.12, "verdict": "faster"}
    wide = {"median": 0.9, "low": 0.51, "high": 1.3, "verdict": "too wide"}
    arms = dict.fromkeys(("engine", "streamed", "bare"), speed)
    made = {"gallery": {"SAM": arms | {"ratio": narrow, "ratio_streamed": wide}}}
    *_, row = other_tables.gallery_table(made).splitlines()
    assert row == "| SAM | 1,000 | 1,000 | 1,000 | 1.10 (1.08 to 1.12) | - (0.51 to 1.30) |"
