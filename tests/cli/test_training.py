"""python train.py: what a training prints, leaves behind and returns."""

import csv
import json
import re

import keras
import pytest

from gradloop import engine
from gradloop.cli import main as train
from gradloop.engine.tuning.choice import Tuning
from tests.cli.runs import QUICK, SMALL, contents, read


def test_leaves_a_whole_run_folder(trained):
    names = {path.name for path in trained.iterdir()}
    assert names >= {
        "config.json", "environment.json", "command.txt", "metrics.csv", "metrics.jsonl",
        "history.json", "summary.json", "train.log", "checkpoints", "tensorboard", "plots",
    }  # fmt: skip
    assert [p.name for p in (trained / "checkpoints").iterdir()] == ["ckpt-8.npz"]
    assert (trained / "plots" / "history.png").stat().st_size > 1000
    assert any((trained / "tensorboard").rglob("*tfevents*"))


def test_summary_has_what_scripts_need(trained):
    summary = read(trained)
    assert 0 < summary["test_accuracy"] <= 1
    assert set(summary["history"]) == {"accuracy", "loss", "val_accuracy", "val_loss"}
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

    def evaluate_other_batches(state, dataset, config):
        weighted = dataset.map(lambda x, y: (x, y, y[:, 0]))
        return evaluate(state, weighted, config)

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


def test_diagnosis_of_the_input_trains_and_saves_nothing(tmp_path, monkeypatch, trained):
    monkeypatch.setattr("gradloop.engine.tuning.trial.WARM_UP_SECS", 0.2)
    monkeypatch.setattr("gradloop.engine.tuning.trial.WINDOW_SECS", 0.05)
    folder = tmp_path / "run"
    assert train.main([*QUICK, "--diagnose_input", "--run_dir", str(folder)]) == 0
    summary = read(folder)
    assert summary["input"]["share"] > 0
    assert summary["input"]["is_resident"]
    assert summary["num_steps"] == 0
    assert not (folder / "checkpoints").exists()
    assert "of the ceiling" in (folder / "train.log").read_text()
    resume = ["--run_dir", str(trained), "--resume", "--diagnose_input"]
    before = contents(trained)
    assert train.main(resume) == 2
    assert contents(trained) == before


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache of choices that no run of this machine's user sees."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("own_cache")
def test_tune_keeps_a_choice_that_later_runs_take(tmp_path, monkeypatch, capsys, trained):
    def choose(make_state, make_dataset, config, *, secs_in_process):
        assert callable(secs_in_process)
        state = make_state()
        state.build(make_dataset(prefetch=16).element_spec)
        fast = {"jit_compile": True, "jit_scope": "loop"}
        return Tuning(exact={"steps_per_execution": 2}, fast=fast)

    monkeypatch.setattr("gradloop.engine.tuning.search.tune", choose)
    assert train.main([*QUICK, "--tune", "--run_dir", str(tmp_path / "tune")]) == 0
    assert read(tmp_path / "tune")["tuning"]["exact"] == {"steps_per_execution": 2}
    assert not (tmp_path / "tune" / "checkpoints").exists()

    capsys.readouterr()
    assert train.main([*QUICK, "--run_dir", str(tmp_path / "exact")]) == 0
    assert "tuned" in capsys.readouterr().out
    config = json.loads((tmp_path / "exact" / "config.json").read_text())
    assert (config["steps_per_execution"], config["jit_compile"]) == (2, None)
    assert read(tmp_path / "exact")["weights_sha256"] == read(trained)["weights_sha256"]

    fast = [*QUICK, "--numerics", "fast", "--run_dir", str(tmp_path / "fast")]
    assert train.main(fast) == 0
    config = json.loads((tmp_path / "fast" / "config.json").read_text())
    assert (config["jit_compile"], config["jit_scope"]) == (True, "loop")
    assert config["steps_per_execution"] is None


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
def test_tune_measures_and_prints_a_table(tmp_path, capsys):
    assert train.main([*SMALL, "--tune", "--run_dir", str(tmp_path / "tune")]) == 0
    table = capsys.readouterr().out
    for trial in ("steps_per_execution=32", "input=streamed", "jit_compile=loop"):
        assert trial in table
    assert "inter_op_threads=1" in table
    assert "its process failed" not in table


def test_log_has_banner_epoch_and_result(trained):
    log = (trained / "train.log").read_text()
    for text in ("dense, 407,050 parameters", "128 global", "Epoch 1/1", "val_accuracy"):
        assert text in log
    accuracy = 100 * read(trained)["test_accuracy"]
    assert f"Test set prediction accuracy: {accuracy:.2f}%" in log
    assert log.rstrip().endswith(str(trained))
    assert "\x1b" not in log
    assert "\r" not in log


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


def test_a_run_folder_is_never_overwritten(trained, capsys):
    before = contents(trained)
    assert train.main([*QUICK, "--run_dir", str(trained)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert contents(trained) == before


@pytest.mark.parametrize(
    "flags",
    [
        "--resume",  # its epochs are done
        "--resume --epochs 2 --model lstm",
        "--resume --mode compare",
        "--resume --checkpoint {trained}/checkpoints",
    ],
)
def test_a_refused_resume_changes_nothing(trained, flags):
    before = contents(trained)
    arguments = flags.format(trained=trained).split()
    assert train.main([*arguments, "--run_dir", str(trained)]) == 2
    assert contents(trained) == before
