"""What each worker of test_multi_worker runs, and one process under mirrored beside them.

Each check trains a small net and returns what must be alike, as JSON can hold it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradloop import engine
from gradloop.engine import planner
from gradloop.engine.workers.peers import Peers
from tests.engine.distribution import clusters

IS_CLUSTER = os.environ["TF_CONFIG"] != clusters.ALONE
CONFIG = engine.TrainConfig(
    strategy="multi_worker" if IS_CLUSTER else "mirrored", seed=0, intra_op_threads=1, epochs=2,
)  # fmt: skip
RNG = np.random.default_rng(0)
X = RNG.normal(size=(76, 4)).astype("float32")
Y = RNG.integers(0, 3, 76)


def make_state(strategy: tf.distribute.Strategy, make: Any = None) -> engine.TrainState:
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input([4]),
                keras.layers.Dense(8, activation="relu"),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.2),
                keras.layers.Dense(3),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = make() if make else keras.optimizers.Adam(0.01)
        return engine.TrainState(model, optimizer, loss=loss, metrics=["accuracy"])


def make_dataset(first: int = 0, last: int = 64, batch_size: int = 8) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((X[first:last], Y[first:last])).batch(batch_size)


def digest(state: engine.TrainState) -> dict[str, str]:
    """Returns a digest of each variable that is alike on all replicas."""
    return {
        name: hashlib.sha256(variable.numpy().tobytes()).hexdigest()[:16]
        for name, variable in state.named_variables()
        if not name.startswith("metrics/") and "moving" not in name
    }


def result(state: engine.TrainState, history: engine.History) -> dict[str, Any]:
    return {
        "variables": digest(state),
        "history": history.history,
        "num_steps": history.num_steps,
        "stop": [history.stop_kind and history.stop_kind.value, history.stop_signal],
    }


def worker_of(state: engine.TrainState) -> int:
    return state.peers.worker if IS_CLUSTER else 1


def clocks_differ(strategy: tf.distribute.Strategy) -> Any:
    """The second worker measures that no execution is short, the others that none is long."""
    state, sizes = make_state(strategy), []
    target = "TARGET_EXECUTION_SECS"
    before = getattr(planner, target)
    setattr(planner, target, 0.0 if state.peers.worker == 1 else 1e6)
    hooks = [engine.LambdaHook(on_execution_end=lambda info: sizes.append(info.execution_steps))]
    config = engine.TrainConfig(**fields(epochs=4, global_batch_size=8))
    history = engine.fit(state, make_dataset(), config, hooks=hooks)
    setattr(planner, target, before)
    return result(state, history) | {"own": {"sizes": sizes}}


def one_stops(strategy: tf.distribute.Strategy) -> Any:
    """A hook of one worker, and a signal to it, end all workers at the same step."""
    state, found = make_state(strategy), []
    for options in (
        {"reason": "I have seen enough"},
        {"reason": "interrupted", "kind": engine.StopKind.INTERRUPTED, "immediately": True,
         "signal": 15},
    ):  # fmt: skip

        def ask(info: engine.HookInfo, options: dict[str, Any] = options) -> None:
            if worker_of(info.state) == 1 and info.progress.step == 6:
                info.request_stop(**options)

        config = engine.TrainConfig(**fields(epochs=4, steps_per_execution=2))
        hooks = [engine.LambdaHook(on_execution_end=ask)]
        history = engine.fit(state, make_dataset(), config, hooks=hooks)
        found.append(result(state, history) | {"reason": history.stop_reason})
    return {"runs": found, "own": {"reasons": [run.pop("reason") for run in found]}}


def early_stopping(strategy: tf.distribute.Strategy) -> Any:
    """Validation has a last batch of 3 examples, and decides the end."""
    state = make_state(strategy)
    hooks = [engine.EarlyStopping(patience=1, min_delta=9, restore_best_weights=True)]
    history = engine.fit(
        state, make_dataset(), engine.TrainConfig(**fields(epochs=12)),
        validation_data=make_dataset(65, 76), hooks=hooks,
    )  # fmt: skip
    return result(state, history) | {
        "evaluated": engine.evaluate(state, make_dataset(65, 76), CONFIG)
    }


def uneven(strategy: tf.distribute.Strategy) -> Any:
    """Of a last batch of one example, the second worker has none."""
    state = make_state(strategy)
    config = engine.TrainConfig(**fields(steps_per_execution=2))
    history = engine.fit(state, make_dataset(0, 33, 16), config)
    return result(state, history)


def one_overflows(strategy: tf.distribute.Strategy) -> Any:
    """Only the last replica has a gradient that is not finite; the optimizer clips, too."""

    def scaled() -> keras.optimizers.Optimizer:
        inner = keras.optimizers.Adam(0.01, global_clipnorm=0.1)
        return keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0)

    def spoil(x: tf.Tensor, y: tf.Tensor) -> Any:
        rows = tf.range(8)[:, tf.newaxis]
        is_bad = tf.reduce_all(x == X[16:24]) & (rows == 7)
        return tf.where(is_bad, float("nan"), x), y

    state = make_state(strategy, scaled)
    history = engine.fit(state, make_dataset().map(spoil), engine.TrainConfig(**fields(epochs=1)))
    return result(state, history)


def predictions(strategy: tf.distribute.Strategy) -> Any:
    """All examples in order; of the last batch, the second replica has none, or less."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        x = keras.Input([4])
        hidden = keras.layers.Dense(3)(x)
        outputs = {
            "hidden": hidden,
            "is_positive": hidden > 0,
            "half": keras.ops.cast(hidden, "bfloat16"),
        }
        state = engine.TrainState(keras.Model(x, outputs))
    found = []
    for num_examples in (76, 73):
        dataset = tf.data.Dataset.from_tensor_slices(X[:num_examples]).batch(8)
        outputs = engine.predict(state, dataset, CONFIG)
        kinds = {name: [str(v.dtype), list(v.shape)] for name, v in outputs.items()}
        found.append([kinds, *(v.astype("float64").tolist() for v in outputs.values())])
        expected = X[:num_examples] @ state.model.get_weights()[0]
        np.testing.assert_allclose(outputs["hidden"], expected, rtol=1e-4, atol=1e-5)
    return found


def last_logs(strategy: tf.distribute.Strategy) -> Any:
    """A step logs what differs between the replicas; of the last batch, these have 3 and 2."""

    def step(state: engine.TrainState, batch: Any) -> Any:
        mean = tf.reduce_mean(batch[0])
        logs = engine.train_step(state, batch)
        return {**logs, "mine": engine.last(mean), "loss": engine.last(100 * mean)}

    state = make_state(strategy)
    plateau = keras.callbacks.ReduceLROnPlateau("loss", min_delta=0.1, patience=1)
    with warnings.catch_warnings():
        # Keras's callback reads the rate as an array, which replicated variables answer so.
        warnings.filterwarnings("ignore", "__array__", DeprecationWarning)
        history = engine.fit(
            state, make_dataset(0, 21), engine.TrainConfig(**fields(epochs=3)), train_step=step,
            hooks=[engine.KerasCallbacks([plateau])],
        )  # fmt: skip
    np.testing.assert_allclose(history.history["mine"], [X[16:21].mean()] * 3, rtol=1e-5)
    return result(state, history) | {"rate": float(state.learning_rate())}


def uneven_batches(strategy: tf.distribute.Strategy) -> Any:
    """Batches of 15, none of which divides."""
    state = make_state(strategy)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Batches of 15 do not divide")
        config = engine.TrainConfig(**fields(global_batch_size=15))
        return result(state, engine.fit(state, make_dataset(0, 76, 15), config))


def from_files(strategy: tf.distribute.Strategy) -> Any:
    """Each worker reads what is its own: a function of the context, for training and validation."""

    def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
        size = context.get_per_replica_batch_size(8)
        whole = make_dataset(batch_size=size)
        return whole.shard(context.num_input_pipelines, context.input_pipeline_id)

    # In one process there is one pipeline: the same batches come from a dataset.
    data = make if IS_CLUSTER else make_dataset()
    state = make_state(strategy)
    return result(state, engine.fit(state, data, CONFIG, validation_data=data))


def fields(**others: Any) -> dict[str, Any]:
    """Returns the fields of the config, with others."""
    return dataclasses.asdict(CONFIG) | others


def main(folder: Path, name: str, checks: Sequence[Callable[[Any], Any]]) -> None:
    engine.configure_runtime(CONFIG)
    strategy = engine.make_strategy(CONFIG)
    found = {}
    for check in checks:
        found[check.__name__] = check(strategy)
        print(check.__name__, f"{time.perf_counter():.0f} s")
    (folder / f"{name}.json").write_text(json.dumps(found))
    Peers(strategy).barrier()


CHECKS = (
    clocks_differ, one_stops, early_stopping, predictions, uneven, uneven_batches, one_overflows,
    from_files, last_logs,
)  # fmt: skip

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], CHECKS)
