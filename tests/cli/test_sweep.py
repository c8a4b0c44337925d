"""Sweeps: runs in turn, what became of them, and how a sweep goes on. A stub stands in for runs."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gradloop import lock, signals
from gradloop.cli.reading import read_config
from gradloop.cli.sweeps import running
from tests.cli.runs import QUICK, ROOT, read

STUB = [sys.executable, str(Path(__file__).with_name("stub_run.py"))]


@pytest.fixture(autouse=True)
def fresh_keras():
    """Nothing here touches Keras."""


def sweep(folder, rates, *flags):
    argv = ["--mode", "sweep", "--set", f"learning_rate={rates}", "--run_dir", str(folder)]
    return running.run(read_config([*argv, "--metric", "val_loss", *flags]), STUB)


def starts(folder, name):
    return [json.loads(line) for line in (folder / name / "command.txt").read_text().splitlines()]


def rows(folder):
    return list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))


def test_the_best_run_comes_first_and_bad_ones_do_not_end_it(tmp_path, capfd):
    folder = tmp_path / "sweep"
    assert sweep(folder, "0.5,1,2,0.02", "--no_plots") == 1
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert lines[0] == "run 1 of 4, 001 learning_rate=0.5" and "ran with 0.5" in lines[1]
    table = [line.split() for line in lines[-6:-1]]
    assert [row[0] for row in table] == ["run", "004", "001", "003", "002"]
    assert table[1][:5] == ["004", "0.02", "val_loss", "0.0001", "in"] and table[1][6] == "2"
    assert [row[-3] for row in table[1:]] == ["completed", "completed", "diverged", "failed"]
    assert err == "" and lines[-1] == f"Everything is in {folder}"
    assert [row["run"] for row in rows(folder)] == ["004", "001", "003", "002"]
    assert float(rows(folder)[0]["best"]) == pytest.approx(1e-4)


def test_a_direction_is_of_the_metric_that_was_named(tmp_path, capfd):
    flags = ["--no_plots", "--keep_best", "val_accuracy", "--direction", "max"]  # val_loss alone is
    argv = ["--mode", "sweep", "--set", "learning_rate=0.5,0.25", "--run_dir", str(tmp_path / "a")]
    assert running.run(read_config([*argv, *flags]), STUB) == 0
    assert [row["run"] for row in rows(tmp_path / "a")] == ["002", "001"]
    assert sweep(tmp_path / "b", "0.25,0.5", "--no_plots", "--direction", "max") == 0
    assert [row["run"] for row in rows(tmp_path / "b")] == ["002", "001"]


def test_runs_that_name_metrics_have_the_direction(tmp_path, capfd):
    def directions(folder, *metric):
        flags = ["--no_plots", "--direction", "max", "--metric", *metric]
        assert sweep(folder, "0.5", *flags, "--set", "keep_best=val_reward,none") == 0
        configs = [read(folder / name, "config.json") for name in ("001", "002")]
        return [config.get("direction") for config in configs]

    assert directions(tmp_path / "none", "none") == ["max", None]
    assert directions(tmp_path / "the_same", "val_reward") == ["max", None]


def test_a_direction_of_the_metric_of_the_sweep_is_not_of_other_metrics(tmp_path, capfd):
    flags = ["--no_plots", "--direction", "min", "--set", "keep_best=val_accuracy,none"]
    assert sweep(tmp_path, "0.5", *flags) == 0
    assert [read(tmp_path / name, "config.json").get("direction") for name in ("001", "002")] == [
        None, None,
    ]  # fmt: skip


def test_what_stands_in_the_place_of_a_file_is_named_below_the_table(tmp_path, capfd):
    (tmp_path / "sweep" / "sweep.csv").mkdir(parents=True)
    assert sweep(tmp_path / "sweep", "0.5", "--no_plots") == 1
    out, err = capfd.readouterr()
    assert (
        "001            0.5  val_loss" in out
        and err.startswith("train.py: error: ")
        and err.count("\n") == 1
    )
    assert "sweep.csv cannot be used" in err


def test_a_picture_shows_values_of_one_metric(tmp_path, capfd, monkeypatch):
    drawn = []
    monkeypatch.setattr("gradloop.cli.plots.sweep.plot_sweep", lambda *args: drawn.append(args))
    argv = ["--mode", "sweep", "--set", "learning_rate=0.5,0.25", "--run_dir", str(tmp_path)]
    argv += ["--set", "keep_best=loss,none", "--plots"]
    assert running.run(read_config(argv), STUB) == 0
    [(points, metric, _)] = drawn
    assert metric == "loss" and [run["keep_best"] for run, _ in points] == ["loss", "loss"]


def test_a_quiet_sweep_shows_its_table_alone(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("GRADLOOP_EPOCHS", "7")
    assert sweep(tmp_path / "sweep", "0.5,0.25", "--quiet", "--plots") == 0
    out, err = capfd.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["run", "002", "001", "Everything"]
    assert err == "" and (tmp_path / "sweep" / "sweep.png").stat().st_size > 1000
    assert starts(tmp_path / "sweep", "001")[0]["epochs"] == 7  # a variable is of the sweep


def test_the_same_command_goes_on_and_runs_nothing_twice(tmp_path, capfd):
    folder = tmp_path / "sweep"
    flags = ["--resume", "auto", "--no_plots", "--set", "model.units=3"]
    assert sweep(folder, "0.5,1", *flags) == 1
    assert sweep(folder, "0.5,1,0.25", *flags) == 1
    assert "001 learning_rate=0.5, model.units=3: it was done before" in capfd.readouterr().out
    assert len(starts(folder, "001")) == 1 and len(starts(folder, "003")) == 1
    first, second = starts(folder, "002")  # it had failed
    assert (first["resume"], second["resume"]) == (None, "auto")
    assert (first["set"], first["run_name"]) == (
        {"model.units": 3}, "002 learning_rate=1.0, model.units=3",
    )  # fmt: skip
    assert sweep(folder, "0.5", *flags, "--epochs", "9") == 0
    assert [start["epochs"] for start in starts(folder, "001")] == [None, 9]


def test_what_is_done_is_known_of_each_run_and_its_settings(tmp_path, capfd):
    folder, flags = tmp_path / "sweep", ["--resume", "auto", "--no_plots"]
    assert sweep(folder, "0.5,0.25", *flags) == 0
    assert sweep(folder, "0.5", *flags, "--epochs", "9") == 0
    assert sweep(folder, "0.5,0.25", *flags, "--epochs", "9") == 0
    epochs = [[start["epochs"] for start in starts(folder, name)] for name in ("001", "002")]
    assert epochs == [[None, 9], [None, 9]]


def test_runs_that_are_to_come_again_do_not_count_with_what_they_were(tmp_path, capfd, monkeypatch):
    folder, flags = tmp_path / "sweep", ["--resume", "auto", "--no_plots"]
    assert sweep(folder, "0.5", *flags) == 0
    with monkeypatch.context() as patch:
        patch.setattr(signals, "number", lambda: signal.SIGINT)  # before the first run
        assert sweep(folder, "0.5", *flags, "--epochs", "9") == 130
    assert (rows(folder)[0]["status"], rows(folder)[0]["best"]) == ("to do", "")
    assert sweep(folder, "0.5", *flags, "--epochs", "9") == 0
    assert rows(folder)[0]["status"] == "completed"


def test_a_run_that_is_refused_does_not_count_with_what_it_was(tmp_path, capfd):
    folder, flags = tmp_path / "sweep", ["--resume", "auto", "--no_plots"]
    assert sweep(folder, "0.5", *flags) == 0
    for _ in range(2):
        assert sweep(folder, "0.5", *flags, "--batch_size", "7") == 1
        assert rows(folder)[0]["status"] == "refused" and rows(folder)[0]["best"] == ""
    assert sweep(folder, "0.5", *flags) == 0
    assert rows(folder)[0]["status"] == "completed"


def test_a_folder_stays_with_its_values_while_others_come_and_go(tmp_path, capfd):
    folder, flags = tmp_path / "sweep", ["--resume", "auto", "--no_plots"]
    for values in ("0.5,0.25", "0.25", "0.25,0.125", "0.5"):
        assert sweep(folder, values, *flags) == 0
    assert len(starts(folder, "003")) == 1  # no other run's folder
    assert "001 learning_rate=0.5: it was done before" in capfd.readouterr().out


def test_a_signal_is_passed_on_and_the_rest_waits(tmp_path, capfd):
    folder = tmp_path / "a sweep"

    def interrupt():
        deadline = time.monotonic() + 20
        while not (folder / "002" / "waits").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with signals.caught(), signals.listening(signals.note):
        assert sweep(folder, "0.5,5,0.25", "--no_plots") == 130
    thread.join()
    err = capfd.readouterr().err
    assert "interrupted: 1 of 3 runs are done" in err and f"'{folder}' --resume auto goes on" in err
    states = {row["run"]: row["status"] for row in rows(folder)}
    assert states == {"001": "completed", "002": "interrupted", "003": "not started"}
    assert sweep(folder, "0.5,5,0.25", "--no_plots", "--resume", "auto") == 0
    assert starts(folder, "002")[1]["resume"] == "auto" and len(starts(folder, "001")) == 1


def test_a_sweep_from_a_checkpoint_goes_on_from_it_alone(tmp_path, capfd, monkeypatch):
    folder, flags = tmp_path / "sweep", ["--no_plots", "--checkpoint", "first.npz"]
    with monkeypatch.context() as patch:
        patch.setattr(signals, "number", lambda: signal.SIGINT)  # before the first run
        assert sweep(folder, "0.5,1", *flags) == 130
    assert sweep(folder, "0.5,1", "--no_plots", "--resume", "auto") == 2
    err = capfd.readouterr().err
    assert "checkpoint=none, but the runs of the sweep in" in err and "first.npz" in err
    for _ in range(2):
        assert sweep(folder, "0.5,1", *flags, "--resume", "auto") == 1
    found = [(start["checkpoint"], start["resume"]) for start in starts(folder, "002")]
    # It has failed without a checkpoint of its own.
    assert found == [("first.npz", None), ("first.npz", "auto")]
    assert len(starts(folder, "001")) == 1


def test_a_second_sweep_in_a_folder_is_refused_in_one_line(tmp_path, capfd):
    folder = tmp_path / "sweep"
    folder.mkdir()
    with lock.locked(folder):  # another file of the same process
        assert sweep(folder, "0.5") == 2
    err = capfd.readouterr().err
    assert err.startswith(f"train.py: error: {folder} is in use by process ")
    assert err.count("\n") == 1 and not (folder / "sweep.json").exists()
    (folder / "lock").mkdir()
    assert sweep(folder, "0.5") == 2
    assert "keeps other processes out of this folder" in capfd.readouterr().err


def refuse(folder, rates, *flags):
    """Returns what a refused sweep says; nothing has run, and nothing is left behind."""
    assert sweep(folder, rates, *flags) == 2
    assert not list(folder.glob("0*"))


def test_all_values_are_checked_before_the_first_run(tmp_path, capfd):
    refuse(tmp_path / "sweep", "0.5,-1")
    assert "learning_rate=-1.0 must be above 0" in capfd.readouterr().err
    refuse(tmp_path / "sweep", "0.5", "--set", "model=dense,denes")
    err = capfd.readouterr().err
    assert (
        "with learning_rate=0.5, model=denes: unknown model 'denes'" in err and err.count("\n") == 1
    )
    refuse(tmp_path / "sweep", "0.5", "--metric", "reward")
    assert "add direction='max'" in capfd.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_a_folder_of_something_else_is_refused(tmp_path, capfd):
    assert sweep(tmp_path / "sweep", "0.5", "--no_plots") == 0
    assert sweep(tmp_path / "sweep", "0.5") == 2
    assert "already holds a sweep: pass --resume auto" in capfd.readouterr().err
    assert sweep(tmp_path / "sweep" / "001", "0.5") == 2
    assert "holds a run, and a sweep has a folder of its own" in capfd.readouterr().err
    (tmp_path / "sweep" / "sweep.json").write_text("{")
    assert sweep(tmp_path / "sweep", "0.5", "--resume", "auto") == 2
    assert "is damaged" in capfd.readouterr().err


@pytest.mark.slow
def test_a_sweep_from_the_command_line(tmp_path):
    """Real runs: one trains, one cannot (its metric is none), which does not end the sweep."""
    flags = [*QUICK, "--mode", "sweep", "--set", "keep_best=val_f1,none", "--no_tensorboard"]
    flags += ["--no_plots", "--direction", "max", "--metric", "val_accuracy", "--quiet"]
    command = [sys.executable, str(ROOT / "train.py"), *flags, "--run_dir", "sweep"]
    ended = subprocess.run(
        command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 1, ended.stderr
    assert "keep_best='val_f1' is not one of" in ended.stderr
    first, second, last = ended.stdout.splitlines()[1:]
    assert first.startswith("002  null") and "val_accuracy" in first and "completed" in first
    assert second.startswith("001  val_f1") and "refused" in second
    assert last == "Everything is in sweep"
    assert read(tmp_path / "sweep" / "002", "config.json")["run_name"] == "002 keep_best=null"
