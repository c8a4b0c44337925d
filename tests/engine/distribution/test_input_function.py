"""A function of `tf.distribute.InputContext` is data, with and without a strategy."""

import contextlib

import keras
import pytest
import tensorflow as tf

from gradloop import engine
from tests.engine.nets import BATCH_SIZE


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_function_of_the_input_context(num_replicas, arrays):
    whole = tf.data.Dataset.from_tensor_slices(tuple(part[: 3 * BATCH_SIZE] for part in arrays[:2]))
    config = engine.TrainConfig(epochs=2, seed=0)
    scope, strategy = contextlib.nullcontext, None
    if num_replicas > 1:
        strategy = engine.make_strategy(
            engine.TrainConfig(strategy="mirrored", num_replicas=num_replicas)
        )
        scope = strategy.scope
    found = []

    def make(context):
        return whole.batch(context.get_per_replica_batch_size(BATCH_SIZE))

    for data in (whole.batch(BATCH_SIZE), make):
        keras.utils.set_random_seed(0)
        with scope():
            model = keras.Sequential([keras.Input([4]), keras.layers.Dense(3)])
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            state = engine.TrainState(model, "sgd", loss=loss)
        history = engine.fit(state, data, config, validation_data=data)
        found.append([history.history, engine.predict(state, data, config).shape])
    assert found[0] == found[1]
