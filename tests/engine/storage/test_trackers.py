"""WandbWriter and MlflowWriter, read back from what they write without a network."""

import contextlib
import os

import numpy as np
import pytest

from gradloop import engine
from gradloop.engine.storage.mlflow_writer import MlflowWriter
from gradloop.engine.storage.retrying import retrying
from gradloop.engine.storage.trackers import RETRY_SECS, RunDescription, flat
from gradloop.engine.storage.wandb_writer import WandbWriter
from tests.engine.storage.wandb_files import read_wandb

ABOUT = RunDescription(
    name="base", config={"epochs": 3, "args": {"units": 2}, "rate": None}, tags=("a", "b")
)
WRITERS = pytest.mark.parametrize("make", [WandbWriter, MlflowWriter])


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


def write_some(writer, steps=(1, 2)):
    for step in steps:
        writer.write(step, {"loss": 1 / step, "rows": np.ones(2)}, epoch=0, kind="execution")
    writer.write(steps[-1], {"loss": 0.5, "val_loss": float("nan")}, epoch=0, kind="epoch")


def mlflow_run(folder, run_id):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(folder / "mlruns").resolve().as_uri())
    return client, client.get_run(run_id)


def test_wandb_has_everything(tmp_path):
    writer = WandbWriter(tmp_path, ABOUT)
    write_some(writer)
    writer.end("completed", {"test/accuracy": 0.75})
    found = read_wandb(tmp_path)
    assert (found["id"], found["name"], found["tags"]) == (writer.id, "base", ["a", "b"])
    assert (found["config"]["epochs"], found["config"]["args"]) == (3, {"units": 2})
    rows = [(row["step"], row.get("execution/loss")) for row in found["history"]]
    assert rows == [(1, 1.0), (2, 0.5), (2, None)]
    assert found["history"][2]["epoch/loss"] == 0.5
    assert not any("rows" in name for row in found["history"] for name in row)
    assert (found["summary"]["status"], found["summary"]["test/accuracy"]) == ("completed", 0.75)
    assert found["exit_codes"] == [0]


def test_mlflow_has_everything(tmp_path):
    writer = MlflowWriter(tmp_path, ABOUT)
    write_some(writer)
    writer.end("diverged", {"test/accuracy": 0.75})
    client, run = mlflow_run(tmp_path, writer.id)
    history = client.get_metric_history(writer.id, "execution/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 0.5)]
    assert run.data.metrics["test/accuracy"] == 0.75 and "epoch/val_loss" in run.data.metrics
    assert run.data.params == {"epochs": "3", "args.units": "2", "rate": "null"}
    assert run.data.tags.items() >= {"a": "true", "b": "true", "status": "diverged"}.items()
    assert (run.info.run_name, run.info.status) == ("base", "FAILED")


@WRITERS
def test_a_run_that_goes_on_is_the_same_one(tmp_path, make):
    first = make(tmp_path, ABOUT)
    assert first.state() == {} and first.id is None
    write_some(first)
    state = first.state()
    first.end("paused")
    second = make(tmp_path, ABOUT)
    second.restore(state)
    write_some(second, steps=(2, 3))
    second.end("completed")
    assert second.id == first.id == state["id"]
    if make is WandbWriter:
        found = read_wandb(tmp_path, num_files=2)
        assert [row["step"] for row in found["history"]] == [1, 2, 2, 2, 3, 3]
        assert found["exit_codes"] == [0, 0]
    else:
        client, run = mlflow_run(tmp_path, first.id)
        history = client.get_metric_history(first.id, "execution/loss")
        assert [metric.step for metric in history] == [1, 2, 2, 3]
        assert run.info.status == "FINISHED"


@WRITERS
def test_what_fails_is_tried_again_and_nothing_is_lost(tmp_path, monkeypatch, make):
    writer = make(tmp_path, ABOUT)
    open_run, calls = type(writer)._open, []

    def fail(self):
        calls.append(len(calls))
        if len(calls) == 1:
            raise RuntimeError("no network\nlong story")
        open_run(self)

    monkeypatch.setattr(type(writer), "_open", fail)
    kept = retrying(writer)
    with pytest.warns(UserWarning, match="cannot write to .*: no network. Training goes on"):
        kept.write(1, {"loss": 1.0}, epoch=0, kind="execution")
    kept.write(2, {"loss": 0.5}, epoch=0, kind="execution")
    assert calls == [0]  # not tried again at once: each try may wait for a network
    writer._not_before -= RETRY_SECS
    kept.write(3, {"loss": 0.25}, epoch=0, kind="execution")
    kept.close()
    writer.end("completed")
    if make is WandbWriter:
        steps = [row["step"] for row in read_wandb(tmp_path)["history"]]
    else:
        client, _ = mlflow_run(tmp_path, writer.id)
        steps = [metric.step for metric in client.get_metric_history(writer.id, "execution/loss")]
    assert steps == [1, 2, 3]


def test_a_run_of_mlflow_that_was_made_is_the_one_that_is_tried_again(tmp_path, monkeypatch):
    log, settings = MlflowWriter._log_settings, []

    def fail(self, client):
        settings.append(self.id)
        if len(settings) == 1:
            raise RuntimeError("no network")
        log(self, client)

    monkeypatch.setattr(MlflowWriter, "_log_settings", fail)
    writer = MlflowWriter(tmp_path, ABOUT)
    for step in (1, 2):
        with contextlib.suppress(OSError):
            writer.write(step, {"loss": 1.0}, epoch=0, kind="epoch")
        writer._not_before -= RETRY_SECS
    client, run = mlflow_run(tmp_path, writer.id)
    assert settings == [writer.id, writer.id]
    assert len(client.search_runs([run.info.experiment_id])) == 1
    assert run.data.params["epochs"] == "3"


def test_an_error_of_the_library_is_an_oserror(tmp_path, monkeypatch):
    monkeypatch.setattr(WandbWriter, "_open", lambda self: 1 / 0)
    with pytest.raises(OSError, match="division by zero"):
        WandbWriter(tmp_path, ABOUT).write(1, {"loss": 1.0}, epoch=0, kind="epoch")


def test_without_a_run_there_is_nothing_to_end(tmp_path):
    WandbWriter(tmp_path, ABOUT).end("failed")
    assert os.listdir(tmp_path) == []


def test_settings_become_texts():
    assert flat(engine.TrainConfig(epochs=2))["epochs"] == "2"
