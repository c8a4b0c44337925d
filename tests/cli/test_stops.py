"""--max_steps and --early_stopping: where a run ends, and how it goes on."""

import keras
import numpy as np
import pytest

from gradloop import engine
from gradloop.cli import main as train
from gradloop.cli.config import JobConfig
from gradloop.cli.hooks import make_hooks
from gradloop.cli.log import Log
from gradloop.cli.monitored import monitored
from gradloop.cli.run_folder import RunFolder
from gradloop.engine import ConfigError
from tests.cli.runs import SMALL, read

FLAGS = [*SMALL, "--limit_train_batches", "4", "--validation_steps", "2", "--epochs", "2"]
FLAGS += ["--no_plots", "--no_tensorboard", "--quiet"]


def run(folder, *more):
    keras.utils.clear_session(free_memory=False)
    return train.main([*FLAGS, "--run_dir", str(folder), *more])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert run(folder) == 0
    return folder


@pytest.mark.parametrize("num_steps", [3, 4])
def test_a_run_ends_exactly_there_and_goes_on_to_the_same_bits(whole, tmp_path, num_steps):
    folder = tmp_path / "run"
    flags = ["--max_steps", str(num_steps), "--resume", "auto"]
    assert run(folder, *flags) == 0
    summary = read(folder)
    assert (summary["status"], summary["num_steps"]) == ("paused", num_steps)
    assert summary["exit_reason"] == f"the limit of {num_steps} steps"
    assert len(summary["history"].get("val_loss", [])) == num_steps // 4
    assert (folder / "checkpoints" / f"ckpt-{num_steps}.npz").exists()
    assert run(folder, "--max_steps", "none", "--resume", "auto") == 0
    assert read(folder)["status"] == "completed"
    assert read(folder)["weights_sha256"] == read(whole)["weights_sha256"]
    assert read(folder)["history"] == read(whole)["history"]


def test_once_the_limit_is_reached_there_is_nothing_to_do(tmp_path, capsys):
    folder = tmp_path / "run"
    assert run(folder, "--max_steps", "3") == 0
    assert capsys.readouterr().out.rstrip().endswith("--resume --max_steps none")
    assert run(folder, "--max_steps", "3", "--resume", "auto") == 0
    assert "all was done before" in capsys.readouterr().out
    assert run(folder, "--resume") == 2
    assert "max_steps=3, but 3 are done: to continue, ask for more" in capsys.readouterr().err


def test_a_limit_at_the_end_of_the_last_epoch_is_no_stop(tmp_path):
    assert run(tmp_path / "run", "--max_steps", "8") == 0
    assert read(tmp_path / "run")["status"] == "completed"


def test_a_run_stops_early_with_its_best_weights(tmp_path):
    folder = tmp_path / "run"
    flags = ["--early_stopping", "val_loss", "--patience", "2", "--min_delta", "100"]
    assert run(folder, *flags, "--restore_best", "--epochs", "9") == 0
    summary = read(folder)
    assert summary["status"] == "stopped" and len(summary["history"]["loss"]) == 3
    assert "val_loss has not improved on" in summary["exit_reason"]
    first = np.load(folder / "checkpoints" / "final.npz")
    assert (folder / "checkpoints" / "ckpt-12.npz").exists() and first.files


def test_a_metric_that_nobody_knows_is_refused_before_training(tmp_path, capsys):
    assert run(tmp_path / "run", "--early_stopping", "val_acuracy") == 2
    err = capsys.readouterr().err
    assert "early_stopping='val_acuracy' is not one of: accuracy, loss, val_accuracy" in err
    assert "Did you mean 'val_accuracy'?" in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("settings", [{"patience": 0}, {"min_delta": 0.1}, {"restore_best": True}])
def test_what_belongs_to_early_stopping_needs_it(settings):
    with pytest.raises(ConfigError, match="is of early_stopping, which is not asked for"):
        JobConfig(**settings)


def test_a_direction_needs_a_metric(tmp_path):
    with pytest.raises(ConfigError, match="direction='max' is of the metric"):
        JobConfig(direction="max")
    assert run(tmp_path / "run", "--keep_best", "accuracy", "--direction", "min") == 0
    assert (tmp_path / "run" / "checkpoints" / "best.npz").exists()


def test_a_direction_is_of_that_of_two_metrics_whose_name_does_not_tell(tmp_path):
    config = JobConfig(keep_best="val_reward", early_stopping="val_loss", direction="max")
    assert monitored(config) == ("val_reward", "max")
    with Log(None) as log:
        hooks = make_hooks(RunFolder(tmp_path), log, config)
    modes = {type(hook): hook.mode for hook in hooks if hasattr(hook, "mode")}
    assert modes == {engine.EarlyStopping: "min", engine.SaveCheckpoint: "max"}
    JobConfig(keep_best="val_accuracy", early_stopping="accuracy", direction="max")
    with pytest.raises(ConfigError, match=r"tell theirs, max of val_accuracy and min of val_loss:"):
        JobConfig(keep_best="val_accuracy", early_stopping="val_loss", direction="max")
