"""What a run shows and writes: --quiet, --run_name, --tags, --tensorboard, --plots, records."""

import importlib.util

import keras
import pytest

from gradloop.cli import main as train
from gradloop.cli.config import JobConfig
from gradloop.cli.run_folder import RunFolder
from gradloop.engine import ConfigError
from gradloop.engine.storage.writers import read_csv
from tests.cli.runs import QUICK, SMALL, read


def test_a_quiet_run_shows_its_result_and_keeps_every_line(tmp_path, capsys):
    folder = tmp_path / "run"
    assert train.main([*QUICK, "--quiet", "--run_dir", str(folder)]) == 0
    out, err = capsys.readouterr()
    accuracy, where = out.splitlines()
    assert accuracy.startswith("Test set prediction accuracy: ") and where.endswith(str(folder))
    assert err == ""
    log = (folder / "train.log").read_text()
    assert "Epoch 1/1 - 8 steps" in log and "devices" in log and accuracy in log


def test_quiet_errors_are_on_stderr(tmp_path, capsys):
    flags = [*QUICK, "--quiet", "--keep_best", "val_f1", "--run_dir", str(tmp_path / "run")]
    assert train.main(flags) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "keep_best='val_f1' is not one of" in err


def test_named_runs_are_numbered_and_keep_their_tags(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = [*QUICK, "--run_name", "a base line", "--tags", "small,first", "--tags", "x"]
    for name in ("a_base_line", "a_base_line-2"):
        keras.utils.clear_session(free_memory=False)
        assert train.main([*flags, "--no_plots", "--no_tensorboard"]) == 0
        folder = tmp_path / "runs" / "dense-synthetic" / name
        assert read(folder, "config.json")["tags"] == ["small", "first", "x"]
        summary = read(folder)
        assert (summary["tags"], summary["run_name"]) == (["small", "first", "x"], "a base line")
        assert not (folder / "plots").exists() and not (folder / "tensorboard").exists()
    assert "run        a base line" in capsys.readouterr().out
    folder = RunFolder.create(tmp_path, model="m", dataset="d", name="a base line")
    assert folder.path.name == "a_base_line"


@pytest.mark.parametrize("name", ["a/b", ".hidden", "..", "a\nb"])
def test_a_name_that_is_none_of_a_folder_is_refused(name):
    with pytest.raises(ConfigError, match=r"run_name=.* must be the name of a folder"):
        JobConfig(run_name=name)


@pytest.mark.parametrize(
    ("setting", "library", "extra"),
    [("tensorboard", "tensorboard", "tensorboard"), ("plots", "matplotlib", "plots")],
)
def test_what_is_asked_for_without_its_library_is_refused(monkeypatch, setting, library, extra):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == library else find_spec(name)
    )
    JobConfig()
    JobConfig(**{setting: False})
    with pytest.raises(ConfigError, match=rf"{setting}=true: .*gradloop\[{extra}\]"):
        JobConfig(**{setting: True})


def test_records_come_every_so_many_steps(tmp_path):
    folder = tmp_path / "run"
    flags = [*QUICK, "--log_every_steps", "3", "--no_plots", "--run_dir", str(folder)]
    assert train.main(flags) == 0
    records = read_csv(folder / "metrics.csv")
    assert [(r["kind"], r["step"]) for r in records] == [
        ("execution", 3), ("execution", 6), ("epoch", 8),
    ]  # fmt: skip


def test_flags_of_training_are_refused_elsewhere(capsys):
    for flag in ("--early_stopping=loss", "--max_steps=3", "--tensorboard", "--log_every_steps=2"):
        assert train.main([*SMALL, "--mode", "compare", flag]) == 2
        assert "is for mode 'train'" in capsys.readouterr().err
