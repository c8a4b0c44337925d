"""--mode runs: the runs of a folder, newest first, whatever their state."""

import json
import os
import subprocess
import sys

import pytest

from gradloop import lock
from gradloop.cli import folder_modes, outcomes
from gradloop.cli.metric_directions import direction_of
from gradloop.cli.pages import run_files
from gradloop.cli.pages.best import metrics_of
from gradloop.cli.reading import read_config


@pytest.fixture(autouse=True)
def fresh_keras():
    """Nothing here touches Keras."""


def write(folder, name, value):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))


def make_run(folder, day, *, tags=None, accuracies=(0.5, 0.9, 0.8), **summary):
    write(folder, "command.txt", "python train.py\n")
    write(folder, "config.json", {"model": "cnn", "dataset": "mnist", "tags": tags})
    rows = [f"{4 * n + 4},{n},epoch,{1 - a},{a}" for n, a in enumerate(accuracies)]
    write(folder, "metrics.csv", "\n".join(["step,epoch,kind,loss,val_accuracy", *rows, ""]))
    began = f"2026-01-{day:02}T10:00:00+00:00"
    known = {"status": "completed", "started_at": began, "num_steps": 12} | summary
    write(folder, "summary.json", known)


def runs(*flags):
    return folder_modes.run(read_config(["--mode", "runs", *flags]).config)


@pytest.fixture
def root(tmp_path):
    make_run(tmp_path / "cnn-mnist" / "old", 1, tags=["a"], steady_images_per_sec=5000.4)
    make_run(tmp_path / "cnn-mnist" / "new", 3, tags=["a", "b"])
    make_run(tmp_path / "sweep-mnist" / "s" / "001", 2, status="diverged", accuracies=())
    write(tmp_path / "sweep-mnist" / "s", "sweep.json", {"runs": []})
    make_run(tmp_path / "cnn-mnist" / "old" / "checkpoints" / "no-run", 9)
    return tmp_path


def test_runs_are_listed_newest_first(root, capsys):
    assert runs("--run_dir", str(root)) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["run", "began", "status", "model"]
    assert [line.split()[0] for line in lines] == [
        "cnn-mnist/new", "sweep-mnist/s/001", "cnn-mnist/old",
    ]  # fmt: skip
    assert "completed  cnn    mnist    val_accuracy 0.9000 in epoch 2" in lines[0]
    assert lines[0].endswith("a,b") and " 5,000 " in lines[2]
    assert "diverged" in lines[1] and " - " in lines[1]


def test_a_run_may_have_the_name_of_a_folder_of_runs(tmp_path, capsys):
    make_run(tmp_path / "profile", 1)
    assert runs("--run_dir", str(tmp_path)) == 0
    assert "\nprofile " in capsys.readouterr().out


def test_tags_and_a_metric_choose(root, capsys):
    assert runs("--run_dir", str(root), "--tags", "a,b", "--metric", "loss", "--json") == 0
    (run,) = json.loads(capsys.readouterr().out)
    assert run["folder"].endswith("new") and run["tags"] == ["a", "b"]
    assert run["best"]["metric"] == "loss" and run["best"]["epoch"] == 2
    assert runs("--run_dir", str(root), "--tags", "c") == 0
    assert "there are no runs with the tags c" in capsys.readouterr().out


def test_what_is_damaged_or_going_on_is_shown_as_such(tmp_path):
    for name in ("killed", "running", "config", "summary", "ancient"):
        make_run(tmp_path / name, 1)
    for name in ("killed", "running"):
        (tmp_path / name / "summary.json").unlink()
    write(tmp_path / "config", "config.json", "{")
    write(tmp_path / "summary", "summary.json", "[]")
    write(tmp_path / "ancient", "summary.json", {"num_steps": "many", "started_at": 3})
    with lock.locked(tmp_path / "running"):
        found = {path.name: outcomes.read(path).status for path in tmp_path.iterdir()}
    assert found == {
        "killed": "unfinished", "running": "running", "config": "damaged", "summary": "damaged",
        "ancient": "ended",
    }  # fmt: skip
    assert not os.path.exists(tmp_path / "killed" / "lock")
    assert outcomes.read(tmp_path / "ancient").num_steps == 12  # of metrics.csv
    assert outcomes.plain(outcomes.read(tmp_path / "damaged"))["status"] == "not started"


def test_without_runs_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert runs() == 0
    assert capsys.readouterr().out == "there are no runs in runs\n"
    assert runs("--run_dir", "missing") == 2
    assert "run_dir='missing' is no folder" in capsys.readouterr().err


def test_it_needs_no_tensorflow(root):
    code = (
        "import sys; from gradloop.cli.start import start; code = start(); "
        "assert not {'tensorflow', 'keras'} & set(sys.modules); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "--mode", "runs", "--run_dir", str(root)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert out.count("\n") == 4


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        ("val_loss", "min"), ("val_accuracy", "max"), ("val_mean_absolute_error", "min"),
        ("auc", "max"), ("classes_loss", "min"), ("accelerate", None), ("reward", None),
    ],
)  # fmt: skip
def test_names_tell_what_is_better(metric, direction):
    assert direction_of(metric) == direction
    assert direction_of(metric, "max") == "max"


def test_a_page_takes_a_direction_for_the_metric_that_needs_one(tmp_path):
    settings = {"keep_best": "reward", "early_stopping": "val_loss", "direction": "max"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    named = list(metrics_of(run_files.read(tmp_path)).items())
    assert named[:2] == [("reward", "max"), ("val_loss", "min")]
