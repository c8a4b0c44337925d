"""Folders of runs, made by hand: what a run writes, and what it should not have written."""

import json

import numpy as np

TIMING = {
    "wall_secs": 10.0,
    "parts": {
        "compute": {"secs": 8.0, "share": 0.8, "usecs_per_step": 800.0},
        "writers/CSVWriter": {"secs": 2.0, "share": 0.2, "usecs_per_step": 200.0},
    },
    "step_secs": {"p50": 0.001, "p95": 0.002, "p99": 0.003},
}
SUMMARY = {
    "status": "completed",
    "exit_reason": "completed",
    "test_accuracy": 0.75,
    "test_logs": {"accuracy": 0.75, "loss": 0.5},
    "num_steps": 300,
    "images_per_sec": 1234.5,
    "timing": TIMING,
    "traces": [{"function": "train_step", "cause": "first call"}],
}
CONFIG = {"mode": "train", "model": "cnn", "dataset": "mnist", "epochs": 3, "keep": 3}
ENVIRONMENT = {"tensorflow": "2.21.0", "git_commit": "abc123", "gpus": {"cuda": "12.5"}}
CSV = """step,epoch,kind,accuracy,loss,learning_rate,val_accuracy,val_loss
50,0,execution,0.4,2.0,0.01,,
100,0,epoch,0.5,1.5,0.01,0.55,1.25
200,1,epoch,0.6,1.0,0.005,0.7,0.75
300,2,epoch,0.7,0.5,0.0025,0.65,0.875
"""


def make_folder(path, *, config=CONFIG, summary=SUMMARY, csv=CSV, log="all well\n"):
    """Writes the files of a run."""
    path.mkdir(parents=True, exist_ok=True)
    files = {"config": config, "summary": summary, "environment": ENVIRONMENT}
    for name, value in files.items():
        (path / f"{name}.json").write_text(json.dumps(value))
    (path / "metrics.csv").write_text(csv, encoding="utf-8")
    (path / "command.txt").write_text("python train.py --model cnn\n")
    (path / "train.log").write_text(log, encoding="utf-8")
    (path / "checkpoints").mkdir(exist_ok=True)
    return path


def write_predictions(path, *, num_classes=3, class_names=None, num_examples=60):
    """Writes predictions.npz: each fifth is wrong, and taken for the next class."""
    labels = np.arange(num_examples) % num_classes
    wrong = np.arange(num_examples) % 5 == 0
    predicted = np.where(wrong, (labels + 1) % num_classes, labels)
    rng = np.random.default_rng(0)
    probabilities = rng.uniform(0.0, 0.1, (num_examples, num_classes)).astype("float32")
    probabilities[np.arange(num_examples), predicted] = 0.5 + 0.5 * rng.uniform(size=num_examples)
    names = {} if class_names is None else {"class_names": np.array(class_names)}
    np.savez_compressed(
        path / "predictions.npz",
        labels=labels, predicted=predicted, probabilities=probabilities, **names,
    )  # fmt: skip
