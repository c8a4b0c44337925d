"""Batches that the graph makes for several logical CPUs: those of tf.data, split as it splits."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.engine.replicas.split_batches import split
from tests.engine.nets import NUM_BATCHES, build_dense, make_config, make_pipeline, mirrored
from tests.engine.nets import make_state as make_any_state

pytestmark = [
    pytest.mark.skipif(
        bool(tf.config.list_physical_devices("GPU")), reason="is about a machine with no GPU"
    ),
    pytest.mark.filterwarnings("ignore:Batches of .* do not divide"),
]


@pytest.mark.parametrize("num_replicas", [2, 3])
def test_parts_are_those_of_a_distributed_dataset(arrays, num_replicas):
    dataset, strategy = make_pipeline(arrays), mirrored(num_replicas)
    distributed = strategy.experimental_distribute_dataset(dataset)
    batches = split(dataset.resident, strategy, distributed.element_spec)
    assert split(dataset.resident, strategy, distributed.element_spec) is batches
    dataset.seek(1)
    batches.seek(1)
    read = tf.function(lambda step: batches.reader()(step))  # noqa: PLW0108 - reads when traced
    local = strategy.experimental_local_results
    expected = list(distributed)
    assert len(expected) == NUM_BATCHES == batches.num_batches
    for step, batch in enumerate(expected):
        for ours, theirs in zip(read(tf.constant(step, tf.int64)), batch, strict=True):
            for a, b in zip(local(ours), local(theirs), strict=True):
                np.testing.assert_array_equal(a, b)  # the last batch has 2 examples


@pytest.mark.slow
def test_training_has_the_bits_of_batches_of_a_dataset_and_one_trace(arrays):
    found = []
    for value in ("resident", "streamed"):
        keras.utils.clear_session(free_memory=False)
        state = make_any_state(build_dense, strategy=mirrored())
        dataset, config = make_pipeline(arrays), make_config(epochs=2, input=value)
        histories = [engine.fit(state, dataset, config).history for _ in range(2)]
        (function,) = state.functions.values()
        assert function.num_traces == 1
        found.append((histories, state.weights_sha256()))
    assert found[0] == found[1]


def test_fit_may_be_called_in_the_scope(arrays):
    state = make_any_state(build_dense, strategy=mirrored())
    with state.strategy.scope():
        history = engine.fit(state, make_pipeline(arrays), make_config(input="resident"))
    assert np.isfinite(history.history["loss"][0])
