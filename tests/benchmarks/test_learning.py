"""Accuracy over seeds: the arithmetic of the comparison, and one quick run of all of it."""

import json

import pytest

from benchmarks import learning
from benchmarks.reporting import other_tables


def test_the_interval_is_students():
    found = learning.compare({"exact": [0.90, 0.92, 0.94], "fast": [0.91, 0.92, 0.95]})["fast"]
    # Differences 0.01, 0, 0.01: mean 0.00667, standard deviation 0.00577, t(2) = 4.30.
    assert found["difference"] == pytest.approx(0.00667, abs=1e-5)
    assert found["high"] - found["difference"] == pytest.approx(0.01434, abs=1e-4)
    assert found["is_within_noise"]


def test_a_steady_loss_of_accuracy_is_told():
    found = learning.compare({"exact": [0.90, 0.92, 0.94], "fast": [0.88, 0.90, 0.919]})["fast"]
    assert not found["is_within_noise"]
    assert found["high"] < 0


def test_bad_arguments_leave_nothing_behind(tmp_path, capsys):
    assert learning.main(["--num_seeds", "1", "--results", str(tmp_path)]) == 2
    assert "must be 2 to 10" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_record_holds_all_ways(tmp_path, monkeypatch):
    accuracies = iter([0.9, 0.91, 0.9, 0.9, 0.92, 0.91, 0.93, 0.92])
    monkeypatch.setattr(learning, "train", lambda *args, **kwargs: next(accuracies))
    monkeypatch.setattr(learning.data, "load", lambda name: None)
    assert learning.main(["--num_seeds", "2", "--results", str(tmp_path), "--hardware", "x"]) == 0
    (path,) = tmp_path.iterdir()
    record = json.loads(path.read_text())
    assert path.name.startswith("learning-dense_x_")
    assert record["accuracies"]["exact"] == [0.9, 0.92]
    assert set(record["differences"]) == set(learning.CONFIGS) - {"exact"}
    assert "within noise" in other_tables.learning_table(record)
