"""One replica of `mirrored` does what is done without a strategy: its bits, and no more work."""

import keras
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.engine.source import Source
from tests.engine.nets import build_model as build
from tests.engine.nets import (
    compile_arguments,
    make_compiled,
    make_config,
    make_pipeline,
    mirrored,
)

pytestmark = pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="is about a machine with no GPU"
)


def make_state(strategy):
    keras.utils.clear_session(free_memory=False)
    if strategy is None:
        return engine.TrainState(build(), **compile_arguments())
    with strategy.scope():
        return engine.TrainState(build(), **compile_arguments())


def make_plain(arrays):
    return tf.data.Dataset.from_tensor_slices(arrays[:2]).batch(4)


@pytest.mark.parametrize(
    ("make_data", "input"), [(make_pipeline, "resident"), (make_plain, "streamed")]
)
def test_it_has_the_bits_of_no_strategy(arrays, make_data, input):
    found = []
    for strategy in (None, mirrored(1)):
        state, val = make_state(strategy), make_plain(arrays)
        config = make_config(epochs=2, input=input)
        history = engine.fit(state, make_data(arrays), config, validation_data=val)
        predicted = engine.predict(state, val, config)
        found.append((history.history, state.weights_sha256(), predicted.tolist()))
    assert found[0] == found[1]


def test_data_that_shuffles_has_the_order_of_fit(arrays):
    """Under a strategy, fit takes one order before the first epoch, and the engine does too."""
    make_data = lambda: make_plain(arrays).shuffle(7, seed=1)  # noqa: E731
    model = make_compiled(build, compile_arguments, mirrored(1))
    expected = model.fit(make_data(), epochs=2, verbose=0, shuffle=False)
    history = engine.fit(make_state(mirrored(1)), make_data(), make_config(epochs=2))
    assert history.history == expected.history


@pytest.mark.parametrize(("num_replicas", "is_plain"), [(1, True), (2, False)])
def test_only_several_replicas_have_a_distributed_dataset(arrays, num_replicas, is_plain):
    """To hand over a batch takes it about as long as the step of a tiny net."""
    source = Source(make_plain(arrays), mirrored(num_replicas), None)
    assert isinstance(source.distributed, tf.data.Dataset) == is_plain
