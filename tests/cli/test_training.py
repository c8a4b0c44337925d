"""python train.py: what a training prints, leaves behind and returns."""

import csv
import datetime
import json
import re
import time

import keras
import pytest

from gradloop import engine
from gradloop.cli import main as train
from tests.cli.runs import QUICK, SMALL, read


def test_leaves_a_whole_run_folder(trained):
    names = {path.name for path in trained.iterdir()}
    assert names >= {
        "config.json", "environment.json", "command.txt", "metrics.csv", "metrics.jsonl",
        "history.json", "summary.json", "train.log", "checkpoints", "tensorboard", "plots",
    }  # fmt: skip
    assert [p.name for p in (trained / "checkpoints").iterdir()] == ["ckpt-8.npz"]
    assert (trained / "plots" / "history.png").stat().st_size > 1000
    assert "Confusion matrix" in (trained / "report.html").read_text("utf-8")
    assert any((trained / "tensorboard").rglob("*tfevents*"))


def test_summary_has_what_scripts_need(trained):
    summary = read(trained)
    assert 0 < summary["test_accuracy"] <= 1
    assert set(summary["history"]) == {
        "accuracy", "learning_rate", "loss", "val_accuracy", "val_loss",
    }  # fmt: skip
    assert summary["history"] == read(trained, "history.json")
    assert summary["num_steps"] == 8
    assert summary["num_traces"] == 2
    assert summary["exit_reason"] == "completed"
    assert summary["images_per_sec"] > 0
    assert summary["peak_memory_bytes"] > 1e8
    assert len(summary["weights_sha256"]) == 64


def test_summary_says_where_the_time_went(trained):
    summary = read(trained)
    parts = summary["timing"]["parts"]
    assert sum(p["secs"] for p in parts.values()) == pytest.approx(summary["timing"]["wall_secs"])
    assert {"compute", "checkpoints", "hooks/ProgressBar", "writers/CSVWriter"} <= set(parts)
    assert [t["function"] for t in summary["traces"]] == ["train_step", "eval_step"]
    assert summary["memory"]["peak_bytes"] > 1e8
    log = (trained / "train.log").read_text()
    assert re.search(r"^  time +\d+ % \w+.* compute", log, re.MULTILINE), log


def test_a_surplus_trace_is_wrong_usage_and_loses_nothing(tmp_path, monkeypatch, capsys):
    evaluate = engine.evaluate

    def evaluate_other_batches(state, dataset, config, hooks):
        weighted = dataset.map(lambda x, y: (x, y, y[:, 0]))
        return evaluate(state, weighted, config, hooks=hooks)

    monkeypatch.setattr(engine, "evaluate", evaluate_other_batches)
    folder = tmp_path / "run"
    assert train.main([*QUICK, "--max_retraces", "0", "--run_dir", str(folder)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("train.py: error: eval_step needs trace number 2")
    assert "batch[2] is new" in error
    assert "\n" not in error
    summary = read(folder)
    assert summary["exit_reason"].startswith("refused: eval_step")
    assert summary["images_per_sec"] > 0
    assert (folder / "checkpoints" / "ckpt-8.npz").exists()


def test_log_has_banner_epoch_and_result(trained):
    log = (trained / "train.log").read_text()
    for text in ("dense, 407,050 parameters", "128 global", "Epoch 1/1", "val_accuracy"):
        assert text in log
    accuracy = 100 * read(trained)["test_accuracy"]
    assert f"Test set prediction accuracy: {accuracy:.2f}%" in log
    assert log.rstrip().endswith(str(trained))
    assert "\x1b" not in log
    assert "\r" not in log


def test_the_summary_says_which_run_it_was_when_and_how_good(trained):
    summary = read(trained)
    assert (summary["model"], summary["dataset"]) == ("dense", "synthetic")
    times = [datetime.datetime.fromisoformat(summary[key]) for key in ("started_at", "ended_at")]
    assert all(one.tzinfo is not None for one in times) and times[0] <= times[1]
    (accuracy,) = summary["history"]["val_accuracy"]
    assert summary["best"] == {"epoch": 0, "metric": "val_accuracy", "value": accuracy}
    assert summary["learning_rate"] == pytest.approx(summary["history"]["learning_rate"][-1])
    assert summary["steady_images_per_sec"] > 2 * summary["images_per_sec"]  # one that traces


def test_each_record_has_its_time_and_learning_rate(trained):
    with (trained / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    times = [float(row["time"]) for row in rows]
    assert times == sorted(times) and time.time() - times[0] < 3600
    assert all(float(row["learning_rate"]) > 0 for row in rows)
    assert list(rows[0])[:4] == ["step", "epoch", "kind", "time"]


def test_metrics_agree_in_both_files(trained):
    with (trained / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    records = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["kind"] == records[-1]["kind"] == "epoch"
    assert float(rows[-1]["val_loss"]) == records[-1]["val_loss"]
    assert records[-1]["val_loss"] == read(trained)["history"]["val_loss"][0]


def test_same_seed_gives_the_same_weights_and_another_one_others(trained, tmp_path):
    for name, seed in (("same", 0), ("other", 1)):
        keras.utils.clear_session(free_memory=False)
        assert train.main([*QUICK, "--seed", str(seed), "--run_dir", str(tmp_path / name)]) == 0
    digests = [read(folder)["weights_sha256"] for folder in (trained, tmp_path / "same")]
    assert digests[0] == digests[1]
    assert read(tmp_path / "other")["weights_sha256"] != digests[0]


def test_a_limit_above_the_number_of_batches_means_all(tmp_path):
    flags = [*SMALL, "--batch_size", "20000", "--limit_train_batches", "9", "--epochs", "2"]
    assert train.main([*flags, "--validation_steps", "9", "--run_dir", str(tmp_path / "all")]) == 0
    assert read(tmp_path / "all")["num_steps"] == 6


def test_rare_validations_count_at_their_epochs(tmp_path, capsys):
    flags = [*SMALL, "--batch_size", "6000", "--epochs", "3", "--validation_freq", "2"]
    assert train.main([*flags, "--run_dir", str(tmp_path / "rare")]) == 0
    summary = read(tmp_path / "rare")
    assert len(summary["history"]["loss"]) == 3
    (accuracy,) = summary["history"]["val_accuracy"]
    assert f"val_accuracy {accuracy:.4f} in epoch 2" in capsys.readouterr().out


@pytest.mark.slow
def test_the_tutorials_net_reaches_its_accuracy_in_one_epoch(tmp_path):
    assert train.main(["--run_dir", str(tmp_path / "cnn")]) == 0
    assert read(tmp_path / "cnn")["test_accuracy"] >= 0.97
    assert read(tmp_path / "cnn")["num_traces"] == 2
