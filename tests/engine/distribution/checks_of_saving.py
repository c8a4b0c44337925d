"""What each worker of test_multi_worker_files runs, and one process under mirrored beside them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import tensorflow as tf

from gradloop import engine
from gradloop.data import pipeline
from gradloop.engine.storage.writers import CSVWriter
from tests.engine.distribution.checks_of_fit import IS_CLUSTER, X, Y, fields, main, make_state

NAME, OTHER = ("multi", "mirrored") if IS_CLUSTER else ("mirrored", "multi")
FOLDER = Path(sys.argv[1])
# Statistics of the replicas differ, so that what is saved of each shows.
CONFIG = engine.TrainConfig(**fields(epochs=3, steps_per_execution=3, sync_statistics=False))
DONE = "done"


def make_dataset() -> tf.data.Dataset:
    return pipeline.make_dataset(X[:63], Y[:63], global_batch_size=8, shuffle=True, seed=0)


def hooks_in(folder: Path) -> list[engine.Hook]:
    return [
        engine.ProgressBar(),
        engine.WriteMetrics(CSVWriter(folder / "metrics.csv"), every_steps=2),
        engine.StateDigest(folder / "digests.csv", every_steps=4),
        engine.SaveCheckpoint(folder / "checkpoints", every_steps=5, max_to_keep=9),
    ]


def whole(strategy: tf.distribute.Strategy) -> Any:
    """A run that nothing interrupts."""
    state, folder = make_state(strategy), FOLDER / NAME / "whole"
    history = engine.fit(state, make_dataset(), CONFIG, hooks=hooks_in(folder))
    (folder / DONE).touch()
    return [state.weights_sha256(), history.history]


def interrupted(strategy: tf.distribute.Strategy) -> Any:
    """The second worker is interrupted within an epoch; all are resumed in another state."""
    state, folder = make_state(strategy), FOLDER / NAME / "interrupted"

    def stop(info: engine.HookInfo) -> None:
        is_second = info.state.peers.worker == info.state.peers.num_workers - 1
        if is_second and info.progress.num_steps_completed >= 11:
            kind = engine.StopKind.INTERRUPTED
            info.request_stop("interrupted", kind=kind, immediately=True, signal=15)

    hooks = [engine.LambdaHook(on_execution_end=stop), *hooks_in(folder)]
    first = engine.fit(state, make_dataset(), CONFIG, hooks=hooks)
    resumed = make_state(strategy)
    resumed.build(make_dataset().element_spec)
    engine.restore_checkpoint(folder / "checkpoints", resumed)
    step = resumed.progress.step
    hooks = [engine.LambdaHook(on_execution_end=lambda info: None), *hooks_in(folder)]
    history = engine.fit(resumed, make_dataset(), CONFIG, hooks=hooks, resume=True)
    return [first.num_steps, step, resumed.weights_sha256(), history.history]


def from_the_other(strategy: tf.distribute.Strategy) -> Any:
    """What the other kind of run has saved is what this one restores."""
    folder = FOLDER / OTHER / "whole"
    while not (folder / DONE).exists():
        time.sleep(0.1)
    state = make_state(strategy)
    state.build(make_dataset().element_spec)
    engine.restore_checkpoint(folder / "checkpoints", state)
    return state.weights_sha256()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], (whole, interrupted, from_the_other))
