"""--logger: what trackers have of a run from the command line, and what happens without them."""

import keras
import pytest

from gradloop.cli import main as train
from gradloop.engine.storage.mlflow_writer import MlflowWriter
from gradloop.engine.storage.wandb_writer import WandbWriter
from tests.cli.runs import SMALL, read
from tests.engine.storage.wandb_files import read_wandb

FLAGS = [*SMALL, "--limit_train_batches", "4", "--validation_steps", "2", "--log_every_steps", "2"]
FLAGS += ["--no_plots", "--no_tensorboard", "--quiet"]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


def run(folder, *more):
    keras.utils.clear_session(free_memory=False)
    return train.main([*FLAGS, "--run_dir", str(folder), *more])


def test_both_trackers_follow_a_run_over_its_resumption(tmp_path, capsys):
    from mlflow import MlflowClient

    folder = tmp_path / "run"
    flags = ["--logger", "wandb,mlflow", "--run_name", "base", "--tags", "a,b", "--epochs", "2"]
    assert run(folder, *flags, "--max_steps", "4") == 0
    assert run(folder, *flags, "--max_steps", "none", "--resume", "auto") == 0
    out, err = capsys.readouterr()
    assert err == "" and "Epoch" not in out and "wandb:" not in out and "mlflow." not in out
    found = read_wandb(folder, num_files=2)
    assert (found["name"], found["tags"]) == ("base", ["a", "b"])
    assert [row["step"] for row in found["history"]] == [2, 4, 6, 8]
    accuracy = read(folder)["test_accuracy"]
    assert found["summary"]["test/accuracy"] == pytest.approx(accuracy)
    client = MlflowClient(tracking_uri=(folder / "mlruns").resolve().as_uri())
    experiment = client.get_experiment_by_name("gradloop").experiment_id
    (tracked,) = client.search_runs([experiment])
    assert tracked.data.metrics["test/accuracy"] == pytest.approx(accuracy)
    assert (tracked.info.status, tracked.data.params["global_batch_size"]) == ("FINISHED", "128")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("what", "code"), [("continue", 0), ("stop", 1)])
def test_a_tracker_that_fails_ends_a_run_only_where_that_is_asked_for(
    tmp_path, monkeypatch, capsys, what, code
):
    monkeypatch.setattr(MlflowWriter, "_create", lambda *args: 1 / 0)
    folder = tmp_path / "run"
    assert run(folder, "--logger", "mlflow", "--on_save_error", what, "--epochs", "1") == code
    err = capsys.readouterr().err
    assert "division by zero" in err and "Traceback" not in err
    assert read(folder)["status"] == ("completed" if code == 0 else "failed")


def test_without_a_key_the_fix_is_said_before_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("gradloop.engine.storage.wandb_writer.is_logged_in", lambda: False)
    monkeypatch.setattr(WandbWriter, "_open", lambda self: pytest.fail("it began"))
    assert run(tmp_path / "run", "--logger", "wandb") == 2
    err = capsys.readouterr().err
    assert "set WANDB_MODE=offline" in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        train.main([*FLAGS, "--logger", "wandbb"])
    assert "logger='wandbb' is not one of: wandb, mlflow. Did you" in capsys.readouterr().err
