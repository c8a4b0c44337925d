"""What a step writes on a replica where it is void is put back there, and nowhere else."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from tests.engine.nets import make_config, make_state, mirrored


def build():
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dropout(0.5), keras.layers.BatchNormalization(), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((4,)), *layers])


def arguments():
    return {
        "optimizer": keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    }


def void_on(*replicas):
    """A step that is void on these replicas at every second update."""

    def step(state, batch):
        logs = engine.train_step(state, batch)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        is_second = tf.equal(state.optimizer.iterations.value % 2, 0)
        state.notes.replica.voids.append(tf.reduce_any(tf.equal(replica, replicas)) & is_second)
        return logs

    return step


def values(state):
    """All values a replica of what is no weight, by name."""
    named = state.named_variables()
    return {
        name: [copy.numpy() for copy in getattr(variable.value, "values", [variable.value])]
        for name, variable in named
        if not variable.trainable and not name.startswith("optimizer")
    }


@pytest.mark.parametrize("num_replicas", [1, 2])
@pytest.mark.parametrize("eagerly", [False, True])
def test_what_is_void_is_put_back(num_replicas, eagerly, arrays):
    def train(step, num_steps):
        keras.utils.clear_session(free_memory=False)  # names are numbered from zero
        strategy = mirrored(num_replicas) if num_replicas > 1 else None
        state = make_state(build, arguments, strategy)
        data = tf.data.Dataset.from_tensor_slices(arrays[:2]).batch(4).take(num_steps)
        config = make_config(
            steps_per_execution=num_steps, run_eagerly=eagerly, sync_statistics=False
        )
        engine.fit(state, data, config, train_step=step)
        return values(state)

    one, two = train(engine.train_step, 1), train(engine.train_step, 2)
    put_back = train(void_on(num_replicas - 1), 2)
    kept = 0
    for name, copies in put_back.items():
        *others, last = copies
        is_seed = "seed" in name
        np.testing.assert_array_equal(last, (two if is_seed else one)[name][-1], name)
        np.testing.assert_array_equal(others, two[name][:-1], name)
        kept += not np.array_equal(one[name][-1], two[name][-1])
    assert kept >= 6  # loss, accuracy, statistics, seeds
