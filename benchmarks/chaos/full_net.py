"""Trains a net with what train.py's models do not have, through the library, and can be resumed.

    python -m benchmarks.chaos.full_net --run_dir RUN [--strategy mirrored] [--seed S] ...

BatchNorm and dropout, the moving average of the weights, a schedule of the learning rate, early
stopping with the best weights. One command line serves the first start and every other one.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from gradloop import engine
from gradloop.data import pipeline, synthetic
from gradloop.engine.storage.writers import CSVWriter, JSONLinesWriter, MultiWriter
from gradloop.files import json_text, write_atomically

BATCH_SIZE = 32
STEPS_PER_EPOCH = 20


def make_state() -> engine.TrainState:
    """Returns the net and its optimizer. Context: inside the scope of the strategy."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(8, 3),
            keras.layers.BatchNormalization(momentum=0.8),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.BatchNormalization(momentum=0.8),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    schedule = keras.optimizers.schedules.ExponentialDecay(1e-2, 50, 0.8)
    return engine.TrainState(
        model,
        keras.optimizers.Adam(schedule, use_ema=True, ema_overwrite_frequency=None),
        loss="categorical_crossentropy",
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )


def make_datasets(seed: int) -> list[pipeline.EpochDataset]:
    """Returns batches to train on and to validate on."""
    splits = synthetic.load_data((8, 8), num_train=STEPS_PER_EPOCH * BATCH_SIZE - 8, num_test=256)
    return [
        pipeline.make_dataset(
            *split, global_batch_size=BATCH_SIZE, num_classes=10, shuffle=trains, seed=seed
        )
        for split, trains in zip(splits, (True, False), strict=True)
    ]


def make_hooks(folder: Path, patience: int) -> list[engine.Hook]:
    """Returns hooks with a state of their own, and those that save and write it."""
    tables = CSVWriter(folder / "metrics.csv"), JSONLinesWriter(folder / "metrics.jsonl")
    return [
        engine.StopOnSignal(),
        engine.EarlyStopping(min_delta=0.05, patience=patience, restore_best_weights=True),
        engine.StateDigest(folder / "digests.csv", every_steps=10),
        engine.WriteMetrics(MultiWriter(*tables)),
        engine.SaveCheckpoint(folder / "checkpoints", every_steps=6),
    ]


def train(folder: Path, config: engine.TrainConfig, patience: int) -> int:
    """Begins or goes on; returns the exit code."""
    engine.configure_runtime(config)
    strategy = engine.make_strategy(config)
    train_ds, test_ds = make_datasets(config.seed or 0)
    with strategy.scope():
        state = make_state()
    state.build(train_ds.element_spec)
    checkpoints = folder / "checkpoints"
    resumes = checkpoints.exists() and engine.latest_checkpoint(checkpoints) is not None
    if resumes:
        engine.restore_checkpoint(checkpoints, state)
    hooks = make_hooks(folder, patience)
    history = engine.fit(
        state, train_ds, config, validation_data=test_ds, hooks=hooks, resume=resumes
    )
    if history.stop_kind is engine.StopKind.INTERRUPTED:
        return 128 + signal.SIGTERM
    logs = engine.evaluate(state, test_ds, config)
    summary = {"test_logs": logs, "stop_reason": history.stop_reason, "epoch": history.epoch}
    summary["weights_sha256"] = state.weights_sha256()
    _write_json(folder / "history.json", history.history)
    _write_json(folder / "summary.json", summary)
    return 0


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_atomically(path, lambda file: file.write(json_text(value, indent=2)))


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the flags and trains."""
    parser = argparse.ArgumentParser(prog="full_net", description=__doc__)
    parser.add_argument("--run_dir", type=Path, required=True)
    parser.add_argument("--strategy", default="default")
    parser.add_argument("--num_replicas", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--patience", type=int, default=8, help="epochs without improvement")
    arguments = parser.parse_args(argv)
    config = engine.TrainConfig(
        epochs=arguments.epochs, global_batch_size=BATCH_SIZE, seed=arguments.seed,
        strategy=arguments.strategy, num_replicas=arguments.num_replicas, steps_per_execution=4,
    )  # fmt: skip
    return train(arguments.run_dir, config, arguments.patience)


if __name__ == "__main__":
    sys.exit(main())
