"""A run that hangs, for a process of its own: `python hanging_run.py training|evaluation`.

What must not count as a hang comes first, and takes twice as long as the limit: tracing both steps
and a hook. Batches take their time, so that the process can be suspended while a step waits.
"""

import sys
import time

import keras
import numpy as np
import tensorflow as tf

from gradloop import engine

SECS = 0.7
NUM_GOOD = {"training": 12, "evaluation": 4}  # batches before the one that never comes


def slow_to_trace(step):
    def traced(state, batch):
        time.sleep(2 * SECS)
        return step(state, batch)

    return traced


def note(what):
    sys.stdout.write(f"{what} {time.time()}\n")  # at once, whatever other threads write
    sys.stdout.flush()


def take_long(info):
    note("hook")
    time.sleep(2 * SECS)
    note("step")


def endless_wait():
    note("waits")  # before the step that needs this batch, if batches are prefetched
    while True:
        time.sleep(60)


def make_dataset(num_batches):
    def batches():
        for _ in range(num_batches):
            time.sleep(SECS / 8)
            yield np.zeros((2, 4), "float32"), np.zeros((2, 1), "float32")
        endless_wait()

    spec = tf.TensorSpec((2, 4)), tf.TensorSpec((2, 1))
    return tf.data.Dataset.from_generator(batches, output_signature=spec)


def main(where):
    num_batches = {"training": 16, "evaluation": 8} | {where: NUM_GOOD[where]}
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(1)])
    state = engine.TrainState(model, "sgd", loss="mse")
    hooks = [
        engine.Watchdog(SECS),
        engine.LambdaHook(
            on_epoch_begin=take_long,
            on_execution_end=lambda info: note("step"),
            on_eval_execution_end=lambda info: note("step"),
        ),
    ]
    engine.fit(
        state,
        make_dataset(num_batches["training"]),
        engine.TrainConfig(epochs=2, steps_per_epoch=8, validation_steps=8, steps_per_execution=2),
        validation_data=make_dataset(num_batches["evaluation"]),
        train_step=slow_to_trace(engine.train_step),
        eval_step=slow_to_trace(engine.eval_step),
        hooks=hooks,
    )


if __name__ == "__main__":
    main(sys.argv[1])
