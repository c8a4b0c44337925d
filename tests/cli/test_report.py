"""What a run says of itself: speed, best epoch, history, and the same keys whatever it did."""

import json

import keras
import numpy as np
import pytest

from gradloop.cli import summary
from gradloop.cli.run_folder import RunFolder
from gradloop.data import pipeline
from gradloop.engine.history import History
from gradloop.engine.parity.compare import Comparison
from gradloop.engine.state import TrainState
from gradloop.engine.storage.writers import CSVWriter, epoch_records

DATASET = pipeline.make_dataset(np.zeros((25, 2)), global_batch_size=10)
RECORDS = [
    {"step": 5, "epoch": 0, "kind": "epoch", "loss": 3.0},
    {"step": 10, "epoch": 1, "kind": "epoch", "loss": 2.0, "val_accuracy": 0.5},
    {"step": 15, "epoch": 2, "kind": "epoch", "loss": 1.0},
    {"step": 20, "epoch": 3, "kind": "epoch", "loss": 0.5, "val_accuracy": 0.25},
]


@pytest.fixture
def state():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    return TrainState(model, "sgd", loss="mse")


@pytest.mark.parametrize(
    ("num_steps_before", "num_steps", "expected"),
    [
        (0, 3, 25),  # 10, 10 and 5: one pass
        (0, 2, 20),
        (0, 7, 60),
        (2, 1, 5),  # only the smaller batch
        (3, 3, 25),
        (4, 3, 25),
        (0, 0, 0),
    ],
)
def test_speed_counts_each_example_once(num_steps_before, num_steps, expected):
    history = History(num_steps=num_steps, train_secs=2.0)
    facts = summary.describe_training(history, num_steps_before + num_steps, DATASET)
    assert facts["images_per_sec"] == expected / 2


def test_a_run_that_did_nothing_has_no_speed():
    facts = summary.describe_training(History(), 0, DATASET)
    assert facts["images_per_sec"] is facts["steady_images_per_sec"] is None


def test_the_steady_speed_leaves_tracing_out():
    parts = {"tracing": 6.0, "compute": 1.5, "data": 0.25, "dispatch": 0.25, "hooks/X": 2.0}
    timing = {
        "parts": {name: {"secs": secs} for name, secs in parts.items()},
        "step_secs": {"p50": 0.5},
    }
    history = History(num_steps=3, train_secs=10.0, timing=timing)
    facts = summary.describe_training(history, 3, DATASET)
    assert (facts["images_per_sec"], facts["steady_images_per_sec"]) == (2.5, 12.5)


@pytest.mark.parametrize(
    ("num_steps", "accuracy", "num_examples"),
    [(None, 0.5, 25), (3, 0.5, 25), (2, None, 20)],
)
def test_a_part_of_the_test_set_has_no_test_accuracy(num_steps, accuracy, num_examples):
    logs = {"loss": 1.0, "categorical_accuracy": 0.5}
    facts = summary.describe_test(logs, DATASET, num_steps)
    assert (facts["test_accuracy"], facts["test_examples"]) == (accuracy, num_examples)
    assert summary.describe_test({"loss": 1.0, "mae": 0.5}, DATASET, None)["test_accuracy"] is None


def test_the_best_epoch_is_that_of_the_first_metric_there_is(state):
    accuracy = {"epoch": 1, "metric": "val_accuracy", "value": 0.5}
    assert summary.find_best(RECORDS, state) == accuracy
    losses = [{k: v for k, v in r.items() if k != "val_accuracy"} for r in RECORDS]
    assert summary.find_best(losses, state) == {"epoch": 3, "metric": "loss", "value": 0.5}
    with_nan = [*losses[:2], losses[2] | {"loss": float("nan")}]
    assert summary.find_best(with_nan, state) == {"epoch": 1, "metric": "loss", "value": 2.0}
    assert summary.find_best(RECORDS, state, "loss") == {"epoch": 3, "metric": "loss", "value": 0.5}
    assert summary.find_best([], state) is None


@pytest.mark.parametrize(("direction", "epoch"), [("max", 0), ("min", 2)])
def test_the_direction_that_a_person_gives_is_that_of_the_best_epoch(state, direction, epoch):
    rewards = [{"epoch": number, "reward": -number} for number in range(3)]
    assert summary.find_best(rewards, state, "reward", direction)["epoch"] == epoch


def test_history_of_a_resumed_run_is_whole_and_the_later_record_counts():
    again = RECORDS[1] | {"loss": 1.5}
    epochs = epoch_records([*RECORDS[:2], {"step": 7, "epoch": 1, "kind": "execution"}, again])
    assert summary.history_of(epochs) == {"loss": [3.0, 1.5], "val_accuracy": [0.5]}


@pytest.mark.parametrize("is_equal", [True, False])
def test_a_comparison_says_its_result(is_equal):
    comparison = Comparison({"loss": [1.0]}, {"loss": [1.0 if is_equal else 2.0]}, [], None)
    facts = summary.describe_comparison(comparison)
    assert (facts["is_equal"], facts["has_moved"]) == (is_equal, False)
    assert facts["history"] == {"loss": [1.0]}


def test_finish_leaves_all_keys_whatever_happened(tmp_path, state, capsys):
    folder = RunFolder.at(tmp_path)
    with folder.open_log() as log:
        summary.finish(folder, log, state, {"exit_reason": "failed: ValueError: a bug"})
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content.keys() >= {
        "test_accuracy", "history", "images_per_sec", "num_steps", "num_traces",
        "peak_memory_bytes", "exit_reason", "weights_sha256",
    }  # fmt: skip
    assert (content["test_accuracy"], content["history"]) == (None, {})
    assert "failed: ValueError: a bug" in capsys.readouterr().out
    assert not (tmp_path / "history.json").exists()


def test_finish_takes_the_history_from_the_table_of_metrics(tmp_path, state):
    folder = RunFolder.at(tmp_path)
    writer = CSVWriter(folder.metrics_csv)
    for record in RECORDS:
        logs = {k: v for k, v in record.items() if k not in ("step", "epoch", "kind")}
        writer.write(record["step"], logs, epoch=record["epoch"], kind="epoch")
    writer.close()
    with folder.open_log() as log:
        summary.finish(folder, log, state, {"exit_reason": "completed", "test_accuracy": 0.5})
    history = json.loads((tmp_path / "history.json").read_text())
    assert history == {"loss": [3.0, 2.0, 1.0, 0.5], "val_accuracy": [0.5, 0.25]}
    text = (tmp_path / "train.log").read_text()
    assert "val_accuracy 0.5000 in epoch 2" in text
    assert "Test set prediction accuracy: 50.00%" in text
