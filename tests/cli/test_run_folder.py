"""The run folder: never overwritten, and it says all that bits depend on."""

import dataclasses
import io
import json
import platform
import subprocess
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.cli.run_folder import RunFolder


def read(path):
    return json.loads(path.read_text())


def test_create_names_the_folder_after_model_dataset_and_time(tmp_path):
    folder = RunFolder.create(tmp_path / "runs", model="cnn", dataset="mnist")
    relative = folder.path.relative_to(tmp_path).parts
    assert relative[:2] == ("runs", "cnn-mnist")
    date, time, number = relative[2].split("-")
    assert len(date) == 8 and len(time) == 6 and (date + time).isdigit() and int(number) >= 1
    assert (folder.path / "command.txt").read_text().count("\n") == 1


def test_odd_names_stay_one_folder_below_the_root(tmp_path):
    folder = RunFolder.create(tmp_path, model="../my model", dataset="a/b")
    assert folder.path.parent.parent == tmp_path


def test_many_at_once_get_a_folder_each(tmp_path):
    folders = []
    barrier = threading.Barrier(8)

    def create():
        barrier.wait()
        folders.extend(RunFolder.create(tmp_path, model="m", dataset="d").path for _ in range(5))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == len(set(folders)) == 40


def test_at_refuses_a_folder_with_a_run_unless_resumed(tmp_path):
    RunFolder.at(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"mine already holds a run: pass --resume") as caught:
        RunFolder.at(tmp_path / "mine")
    assert "\n" not in str(caught.value)
    RunFolder.at(tmp_path / "mine", resume=True)
    assert (tmp_path / "mine" / "command.txt").read_text().count("\n") == 2


def test_at_takes_a_folder_with_other_things_and_resume_takes_an_empty_one(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert RunFolder.at(tmp_path).path == tmp_path
    assert RunFolder.at(tmp_path / "empty", resume=True).path.is_dir()


def test_of_many_that_ask_for_one_folder_one_gets_it(tmp_path):
    outcomes = []
    barrier = threading.Barrier(8)

    def take():
        barrier.wait()
        try:
            outcomes.append(RunFolder.at(tmp_path / "mine"))
        except ValueError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(outcome, RunFolder) for outcome in outcomes) == 1
    assert len(outcomes) == 8


def test_a_process_that_comes_between_the_look_and_the_claim_is_noticed(tmp_path, monkeypatch):
    RunFolder.at(tmp_path)
    monkeypatch.setattr(Path, "exists", lambda path: False)  # The look saw nothing yet.
    with pytest.raises(ValueError, match="already holds a run"):
        RunFolder.at(tmp_path)


@pytest.mark.parametrize(
    "make", [RunFolder.at, lambda p: RunFolder.create(p, model="m", dataset="d")]
)
def test_an_unwritable_place_is_one_line_with_path_and_fix(tmp_path, make):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write to .*file.*Name another") as caught:
        make(tmp_path / "file" / "run")
    assert "\n" not in str(caught.value)


@dataclasses.dataclass(frozen=True)
class _Config:
    epochs: int = 3
    rate: float = float("nan")


def test_json_files_are_strict_and_replaced_within_a_run(tmp_path):
    folder = RunFolder.at(tmp_path)
    folder.write_config(_Config())
    folder.write_history({"loss": [np.float32(0.5), float("inf")]})
    folder.write_summary({"test_accuracy": 0.1})
    folder.write_summary({"test_accuracy": np.float64(0.2)})
    assert read(tmp_path / "config.json") == {"epochs": 3, "rate": "NaN"}
    assert read(tmp_path / "history.json") == {"loss": [0.5, "Infinity"]}
    assert read(tmp_path / "summary.json") == {"test_accuracy": 0.2}
    assert sorted(p.name for p in tmp_path.glob("*.json")) == [
        "config.json",
        "history.json",
        "summary.json",
    ]


def test_a_resumed_run_loses_nothing_of_the_old_one(tmp_path):
    for epochs in (1, 2, 2, 3):
        folder = RunFolder.at(tmp_path, resume=True)
        folder.write_config(_Config(epochs, 0.0))
        with folder.open_log(io.StringIO()) as log:
            log.line(f"epochs: {epochs}")
    kept = [
        json.loads((tmp_path / f"config{n}.json").read_text())["epochs"] for n in (".1", ".2", "")
    ]
    assert kept == [1, 2, 3]
    assert not (tmp_path / "config.3.json").exists()
    assert (tmp_path / "train.log").read_text().splitlines() == [
        "epochs: 1", "epochs: 2", "epochs: 2", "epochs: 3",
    ]  # fmt: skip


def test_paths_lie_in_the_folder_and_come_into_being_later(tmp_path):
    folder = RunFolder.at(tmp_path)
    names = ("checkpoints", "tensorboard", "plots", "metrics_csv", "metrics_jsonl")
    paths = [getattr(folder, name) for name in names]
    assert [p.name for p in paths] == [
        "checkpoints", "tensorboard", "plots", "metrics.csv", "metrics.jsonl",
    ]  # fmt: skip
    assert all(p.parent == tmp_path and not p.exists() for p in paths)


def test_the_command_can_be_pasted_into_a_shell(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.orig_argv", ["python", "train.py", "--run_dir", "my runs/$1"])
    RunFolder.at(tmp_path)
    line = (tmp_path / "command.txt").read_text()
    echoed = subprocess.check_output(["sh", "-c", f"printf '%s|' {line}"], text=True)
    assert echoed == "python|train.py|--run_dir|my runs/$1|"


def test_the_environment_tells_versions_devices_threads_and_flags(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    folder = RunFolder.at(tmp_path)
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    folder.write_environment()
    environment = read(tmp_path / "environment.json")
    assert environment["python"] == platform.python_version()
    assert environment["tensorflow"] == tf.__version__
    assert environment["keras"] == keras.__version__
    assert environment["numpy"] == np.__version__
    assert environment["processor"] and environment["num_cores"] >= 1
    assert len(environment["logical_devices"]) == len(tf.config.list_logical_devices()) > 1
    assert environment["physical_devices"][0]["name"]
    assert environment["op_determinism"] is False
    assert environment["intra_op_threads"] == tf.config.threading.get_intra_op_parallelism_threads()
    assert environment["variables"]["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert environment["variables"]["XLA_FLAGS"] is None
    assert environment["variables"]["TF_NUM_INTRAOP_THREADS"] == "3"
