"""Writers keep every number, and files stay whole whatever happens."""

import csv
import importlib.util
import json
import math

import numpy as np
import pytest

from gradloop.engine.storage.extras import MissingExtra
from gradloop.engine.storage.tensorboard import TensorBoardWriter
from gradloop.engine.storage.writers import (
    CSVWriter,
    JSONLinesWriter,
    MemoryWriter,
    MultiWriter,
    read_csv,
)


def _rows(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_csv_has_a_row_a_record_with_exact_floats(tmp_path):
    path = tmp_path / "deep" / "metrics.csv"
    writer = CSVWriter(path)
    writer.write(3, {"loss": 0.1 + 0.2, "accuracy": 1e-9}, epoch=0, kind="execution")
    writer.close()
    assert _rows(path) == [
        ["step", "epoch", "kind", "loss", "accuracy"],
        ["3", "0", "execution", "0.30000000000000004", "1e-09"],
    ]


def test_csv_widens_for_a_late_column_and_keeps_old_rows(tmp_path):
    path = tmp_path / "metrics.csv"
    writer = CSVWriter(path)
    writer.write(1, {"loss": 2.0}, epoch=0, kind="execution")
    writer.write(2, {"loss": 1.0, "val_loss": 1.5}, epoch=0, kind="epoch")
    writer.write(3, {"loss": 0.5}, epoch=1, kind="execution")
    writer.close()
    assert _rows(path) == [
        ["step", "epoch", "kind", "loss", "val_loss"],
        ["1", "0", "execution", "2.0", ""],
        ["2", "0", "epoch", "1.0", "1.5"],
        ["3", "1", "execution", "0.5", ""],
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]


def test_csv_kill_while_widening_leaves_the_old_table(tmp_path, monkeypatch):
    path = tmp_path / "metrics.csv"
    writer = CSVWriter(path)
    writer.write(1, {"loss": 2.0}, epoch=0, kind="execution")
    before = path.read_bytes()

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("gradloop.files.os.replace", die)
    with pytest.raises(KeyboardInterrupt):
        writer.write(2, {"loss": 1.0, "val_loss": 1.5}, epoch=0, kind="epoch")
    assert path.read_bytes() == before
    writer.close()


def test_csv_continues_a_file_of_another_process(tmp_path):
    path = tmp_path / "metrics.csv"
    for step, logs in enumerate([{"a": 1.0, "b": 2.0}, {"b": 3.0, "c": 4.0}]):
        writer = CSVWriter(path)
        writer.write(step, logs, epoch=0, kind="execution")
        writer.close()
    assert read_csv(path) == [
        {"step": 0, "epoch": 0, "kind": "execution", "a": 1.0, "b": 2.0},
        {"step": 1, "epoch": 0, "kind": "execution", "b": 3.0, "c": 4.0},
    ]


@pytest.mark.parametrize("make", [CSVWriter, JSONLinesWriter])
def test_a_line_that_a_kill_tore_is_cut_and_the_rest_kept(tmp_path, make):
    path = tmp_path / "metrics"
    writer = make(path)
    writer.write(1, {"loss": 0.5}, epoch=0, kind="execution")
    writer.write(2, {"loss": 0.25}, epoch=0, kind="execution")
    writer.close()
    whole = path.read_text()
    path.write_text(whole[:-3])
    writer = make(path)
    writer.write(2, {"loss": 0.25}, epoch=0, kind="execution")
    writer.close()
    assert path.read_text() == whole


@pytest.mark.parametrize("make", [CSVWriter, JSONLinesWriter])
def test_a_clock_gives_each_record_its_time(tmp_path, make):
    times = iter([1_700_000_000.12345, 1_700_000_060.5])
    path = tmp_path / "metrics"
    writer = make(path, clock=lambda: next(times))
    writer.write(1, {"loss": 0.5}, epoch=0, kind="execution")
    writer.write(2, {"loss": 0.25}, epoch=0, kind="epoch")
    writer.close()
    if make is CSVWriter:
        records = read_csv(path)
    else:
        records = [json.loads(line) for line in path.read_text().splitlines()]
    assert records == [
        {"step": 1, "epoch": 0, "kind": "execution", "time": 1_700_000_000.123, "loss": 0.5},
        {"step": 2, "epoch": 0, "kind": "epoch", "time": 1_700_000_060.5, "loss": 0.25},
    ]


def test_a_table_without_times_is_continued_with_them(tmp_path):
    path = tmp_path / "metrics.csv"
    for step, clock in ((1, None), (2, lambda: 60.0)):
        writer = CSVWriter(path, clock=clock)
        writer.write(step, {"loss": 0.5}, epoch=0, kind="epoch")
        writer.close()
    first, second = read_csv(path)
    assert "time" not in first
    assert (second["time"], second["loss"]) == (60.0, 0.5)


def test_csv_refuses_a_file_that_is_not_its_own(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("name,age\nann,3\n")
    with pytest.raises(ValueError, match=r"other\.csv exists and is not a table of metrics"):
        CSVWriter(path).write(1, {"loss": 1.0}, epoch=0, kind="execution")
    assert path.read_text() == "name,age\nann,3\n"


@pytest.mark.parametrize("make", [CSVWriter, JSONLinesWriter])
def test_each_record_is_on_disk_at_once_and_closing_is_not_the_end(tmp_path, make):
    path = tmp_path / "metrics"
    writer = make(path)
    writer.close()
    assert not path.exists()
    writer.write(1, {"loss": 0.5}, epoch=0, kind="execution")
    size = path.stat().st_size
    assert size > 0
    writer.close()
    writer.close()
    writer.write(2, {"loss": 0.5}, epoch=0, kind="execution")
    writer.flush()
    assert path.stat().st_size > size
    writer.close()


def test_json_lines_are_strict_json_with_non_finite_numbers_as_strings(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = JSONLinesWriter(path)
    logs = {"loss": math.nan, "a": math.inf, "b": -math.inf, "c": np.float32(0.5)}
    writer.write(7, logs, epoch=2, kind="epoch")
    writer.close()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    record = json.loads(path.read_text(), parse_constant=refuse)
    assert record == {
        "step": 7, "epoch": 2, "kind": "epoch", "loss": "NaN", "a": "Infinity", "b": "-Infinity",
        "c": 0.5,
    }  # fmt: skip
    assert math.isnan(float(record["loss"])) and float(record["b"]) == -math.inf


def test_csv_reads_back_what_it_wrote_also_nan_and_arrays(tmp_path):
    writer = CSVWriter(tmp_path / "metrics.csv")
    logs = {"loss": math.nan, "big": math.inf, "f1": np.array([0.5, 0.25], "float32")}
    writer.write(1, logs, epoch=0, kind="epoch")
    writer.close()
    (record,) = read_csv(tmp_path / "metrics.csv")
    assert math.isnan(record["loss"]) and record["big"] == math.inf
    assert record["f1"] == [0.5, 0.25]


def test_memory_keeps_copies():
    writer = MemoryWriter()
    logs = {"loss": 1.0}
    writer.write(1, logs, epoch=0, kind="execution")
    logs["loss"] = 2.0
    assert writer.records == [{"step": 1, "epoch": 0, "kind": "execution", "loss": 1.0}]


@pytest.mark.parametrize("name", ["step", "epoch", "kind"])
def test_a_metric_with_a_reserved_name_is_refused(name):
    with pytest.raises(ValueError, match=f"may not be named '{name}'"):
        MemoryWriter().write(1, {name: 1.0}, epoch=0, kind="execution")


class _Recorder(MemoryWriter):
    def __init__(self, error=None):
        super().__init__()
        self.calls, self.error = [], error

    def flush(self):
        self.calls.append("flush")

    def close(self):
        self.calls.append("close")
        if self.error:
            raise self.error


def test_multi_writer_hands_on_everything_and_closes_all_in_spite_of_an_error():
    first, second, third = _Recorder(), _Recorder(OSError("disk full")), _Recorder()
    writer = MultiWriter(first, second, third)
    writer.write(1, {"loss": 1.0}, epoch=0, kind="epoch")
    writer.flush()
    with pytest.raises(OSError, match="disk full"):
        writer.close()
    assert first.records == second.records == third.records != []
    assert first.calls == second.calls == third.calls == ["flush", "close"]


@pytest.mark.parametrize("make", [CSVWriter, JSONLinesWriter])
def test_a_directory_that_cannot_be_made_is_named_with_the_fix(tmp_path, make):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write to .*file.*: .*Name another directory"):
        make(tmp_path / "file" / "metrics.csv")


def test_without_tensorboard_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install gradloop\[tensorboard\]"):
        TensorBoardWriter(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_scalars_can_be_read_back(tmp_path):
    pytest.importorskip("tensorboard")
    writer = TensorBoardWriter(tmp_path)
    writer.write(64, {"loss": 0.75, "f1": np.zeros(3)}, epoch=0, kind="execution")
    writer.write(128, {"loss": 0.5, "val_loss": 0.25}, epoch=1, kind="epoch")
    writer.close()
    assert _scalars(tmp_path / "train") == [("execution_loss", 64, 0.75), ("epoch_loss", 1, 0.5)]
    assert _scalars(tmp_path / "validation") == [("epoch_loss", 1, 0.25)]


def _scalars(directory):
    import tensorflow as tf

    (path,) = directory.glob("events.out.tfevents.*")
    events = map(tf.compat.v1.Event.FromString, (r.numpy() for r in tf.data.TFRecordDataset(path)))
    return [
        (value.tag, event.step, float(tf.make_ndarray(value.tensor)))
        for event in events
        for value in event.summary.value
    ]
