"""Trains on a set four times as large as the memory that is left, for test_larger_than_memory.

Usage: larger_than_memory.py FOLDER. Prints the digests of a whole run, and of one that was stopped
in mid-epoch and resumed, and the growth of the memory as a share of the set.
"""

import re
import resource
import sys
from pathlib import Path

import keras

from gradloop import data, engine
from gradloop.data.own import FileOptions

BATCH_SIZE = 8


def status(name):
    """Returns a size from /proc/self/status, in bytes."""
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def train(folder, checkpoints, num_steps=None):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((256, 256, 1)),
            layers.AveragePooling2D(64),
            layers.Flatten(),
            layers.Dense(4, "softmax"),
        ]
    )
    state = engine.TrainState(model, keras.optimizers.Adam(), loss="categorical_crossentropy")
    splits = data.load(str(folder), options=FileOptions(in_memory=False))
    dataset = splits.train.make_dataset(global_batch_size=BATCH_SIZE, shuffle=True, prefetch=2)
    state.build(dataset.element_spec)
    hooks = [engine.SaveCheckpoint(checkpoints)]
    resumes = any(checkpoints.glob("*.npz"))
    if resumes:
        engine.restore_checkpoint(checkpoints, state)
    elif num_steps is not None:
        hooks.append(engine.StopAfterSteps(num_steps))
    config = engine.TrainConfig(epochs=1, global_batch_size=BATCH_SIZE)
    engine.fit(state, dataset, config, hooks=hooks, resume=resumes)
    return state


def main(folder):
    train(folder / "small.tfrecord", folder / "warm_up")
    large, before = folder / "large.tfrecord", status("RssAnon")
    size = large.stat().st_size
    limit = status("VmData") + size // 4
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    whole = train(large, folder / "whole")
    num_steps = whole.progress.num_steps_completed
    stopped = train(large, folder / "parts", num_steps // 3)
    assert 0 < stopped.progress.num_steps_completed < num_steps
    resumed = train(large, folder / "parts")
    assert resumed.progress.num_steps_completed == num_steps
    print(whole.weights_sha256(), resumed.weights_sha256(), stopped.weights_sha256())
    print((status("RssAnon") - before) / size)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
