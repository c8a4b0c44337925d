"""Files that cannot be used: one line that names the file, in every mode, and never a traceback."""

import errno
import shutil
import zipfile

import keras
import pytest
import tensorflow as tf

from gradloop import engine, files
from gradloop.cli import main as train
from gradloop.cli.run_folder import RunFolder
from tests.cli.runs import QUICK, contents, read

RESUMED = {
    "train": ["--resume", "--epochs", "2"],
    "evaluate": ["--mode", "evaluate", "--resume"],
    "predict": ["--mode", "predict", "--resume"],
}


@pytest.fixture
def run(tmp_path, trained):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    keras.utils.clear_session(free_memory=False)
    return folder


def block(path):
    """Puts something in the place of a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("")
    else:
        path.unlink(missing_ok=True)
        (path / "in").mkdir(parents=True)


@pytest.mark.parametrize(
    ("mode", "name", "code"),
    [
        ("predict", "plots", 0),
        ("evaluate", "metrics.csv", 0),
        ("evaluate", "train.log", 0),
        ("evaluate", "command.txt", 2),
        ("predict", "predictions.csv", 1),
        ("predict", "predictions.npz", 1),
        *[
            pytest.param("train", name, code, marks=pytest.mark.slow)
            for name, code in {
                "plots": 0, "tensorboard": 1, "metrics.jsonl": 0, "environment.json": 0,
                "history.json": 0, "report.html": 0, "config.json": 2,
            }.items()
        ],
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("default")
def test_what_stands_in_the_place_of_a_file_is_named(run, capsys, mode, name, code):
    block(run / name)
    capsys.readouterr()
    flags = [*RESUMED[mode], *(["--plots"] if name == "plots" else [])]
    assert train.main([*flags, "--run_dir", str(run)]) == code
    err = capsys.readouterr().err
    assert "Traceback" not in err
    first = err.splitlines()[0]
    assert first.startswith(("train.py: error: ", "warning: "))
    assert str(run / name) in first


def test_a_full_disk_while_predictions_are_written_names_the_file(run, capsys):
    (run / "predictions.csv").unlink()
    (run / "predictions.csv").symlink_to("/dev/full")
    assert train.main([*RESUMED["predict"], "--run_dir", str(run)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"train.py: error: {run / 'predictions.csv'} cannot be used: No space left on device. "
        "Free some space, or name another folder."
    )
    assert read(run, "summary.predict.json")["status"] == "failed"


@pytest.mark.filterwarnings("default")
def test_a_folder_that_became_read_only_costs_no_result(run, monkeypatch, capsys):
    def refuse(path, *args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr("gradloop.cli.run_folder.write_atomically", refuse)
    monkeypatch.setattr("gradloop.cli.plots.plot_history", lambda *args, **kwargs: refuse("plots"))
    assert train.main([*RESUMED["evaluate"], "--run_dir", str(run)]) == 0
    out, err = capsys.readouterr()
    assert "Test set prediction accuracy: " in out and "Traceback" not in err
    assert f"{run / 'summary.evaluate.json'} cannot be used: Read-only file system." in err


def test_data_without_permission_are_wrong_usage(tmp_path, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", "/secret/mnist.npz")

    monkeypatch.setattr("gradloop.cli.splits.data.load", refuse)
    assert train.main([*QUICK, "--run_dir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == (
        "train.py: error: /secret/mnist.npz cannot be used: Permission denied. "
        "Change its permissions, or name another place.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_bug_before_the_run_keeps_its_traceback(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise TypeError("a bug")

    monkeypatch.setattr("gradloop.cli.splits.data.load", fail)
    with pytest.raises(TypeError, match="a bug"):
        train.main([*QUICK, "--run_dir", str(tmp_path / "run")])


def test_a_checkpoint_that_cannot_be_read_is_not_called_damaged(run, monkeypatch, capsys):
    def fail(*args):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(zipfile, "_EndRecData", fail)
    before = contents(run / "checkpoints")
    assert train.main([*RESUMED["evaluate"], "--run_dir", str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot read" in line and "Input/output error" in line and "damaged" not in line
    assert contents(run / "checkpoints") == before


def test_a_table_that_is_none_is_a_warning(run, capsys):
    RunFolder(run).metrics_csv.write_text("step,epoch,kind,loss\n1,0,epoch,much\n")
    assert train.main([*RESUMED["evaluate"], "--run_dir", str(run)]) == 0
    err = capsys.readouterr().err
    assert f"{run / 'metrics.csv'} cannot be used: it is no table of metrics" in err


NAMED = OSError(errno.EACCES, "Permission denied", "x")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (NAMED, "x cannot be used: Permission denied."),
        (OSError(errno.ENOSPC, "No space left on device"), "a file cannot be used: No space"),
        (files.DirectoryError("cannot write to x"), "cannot write to x"),
        (OSError("the file x is empty: take another"), "the file x is empty: take another"),
        (
            tf.errors.NotFoundError(None, None, "x.tfrecord; No such file or directory"),
            "x.tfrecord",
        ),
        (tf.errors.InternalError(None, None, "a bug"), None),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), None),
        (engine.ConfigError("x"), None),
        (ZeroDivisionError(), None),
    ],
)
def test_an_error_of_a_file_is_explained_and_no_other(error, line):
    found = files.explain(error)
    assert found is None if line is None else found.startswith(line)
