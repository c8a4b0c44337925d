"""predict runs many batches a call, in the order of the data, with the outputs of Keras's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.engine import predict_function
from gradloop.engine.evaluation import evaluate
from gradloop.engine.hooks.keras_callbacks import KerasCallbacks
from gradloop.engine.prediction import predict
from gradloop.engine.state import TrainState
from tests.engine.nets import (
    BATCH_SIZE,
    NUM_BATCHES,
    NUM_EXAMPLES,
    Subclassed,
    make_compiled,
    make_config,
    make_pipeline,
    make_state,
    make_tiny,
)


class Rows(keras.Model):
    """Gives what `kind` says of each batch; its layer is there to have a weight."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def call(self, x):
        size = tf.shape(x)[0]
        return {
            "scalar": lambda: tf.reduce_sum(x),
            "ragged": lambda: tf.RaggedTensor.from_tensor(x[:, :2]),
            "lengths": lambda: tf.tile(x[:, :1], [1, size]),  # as long as the batch
            "several": lambda: {"a": x, "b": (x[:, 0], tf.cast(x * 10, tf.int64))},
            "strings": lambda: tf.as_string(x),
        }[self.kind]()


def data_of(kind, arrays):
    """Returns the same batches of `x`, in another form."""
    dataset = tf.data.Dataset.from_tensor_slices(arrays[0]).batch(BATCH_SIZE)
    return {
        "arrays": lambda: arrays[0],
        "dataset": lambda: dataset,
        "unknown length": lambda: dataset.filter(lambda x: True),
        "pipeline": lambda: make_pipeline((arrays[0], None), shuffle=False),
        "generator": lambda: ((x,) for x in list(dataset.as_numpy_iterator())),
    }[kind]()


@pytest.mark.parametrize("kind", ["arrays", "dataset", "unknown length", "pipeline", "generator"])
@pytest.mark.parametrize("steps", [None, 3, NUM_BATCHES])
def test_each_kind_of_data_gives_the_bits_of_keras(arrays, kind, steps):
    config = make_config(steps_per_execution=None, global_batch_size=BATCH_SIZE)
    state = make_state()
    expected = state.model.predict(data_of("dataset", arrays), steps=steps, verbose=0)
    found = predict(state, data_of(kind, arrays), config, steps=steps)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["scalar", "ragged", "lengths", "several", "strings"])
@pytest.mark.parametrize("form", ["arrays", "dataset"])
def test_outputs_of_each_kind_are_those_of_keras(arrays, kind, form):
    x = arrays[0][: 2 * BATCH_SIZE + 1]
    data = x if form == "arrays" else tf.data.Dataset.from_tensor_slices(x).batch(BATCH_SIZE)
    state = make_state(lambda: Rows(kind), lambda: {"optimizer": "sgd"})
    expected = state.model.predict(
        data, batch_size=BATCH_SIZE if form == "arrays" else None, verbose=0
    )
    found = predict(state, data, make_config(global_batch_size=BATCH_SIZE))
    tf.nest.assert_same_structure(found, expected)
    for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_equal(*(_as_lists(value) for value in (one, other)))


def _as_lists(value):
    return value.to_list() if isinstance(value, tf.RaggedTensor) else value


@pytest.mark.parametrize("form", ["arrays", "pipeline", "dataset"])
def test_the_next_call_traces_nothing(arrays, form):
    calls = []

    class Counted(Subclassed):
        def call(self, x):
            calls.append(x.shape)
            return super().call(x)

    state = make_state(
        Counted, lambda: {"optimizer": "sgd", "loss": "sparse_categorical_crossentropy"}
    )
    config = make_config(global_batch_size=BATCH_SIZE)

    def data(number):
        x, y = (array[:number] for array in arrays[:2])
        if form == "pipeline":
            return make_pipeline((x, y), shuffle=False)
        if form == "dataset":
            return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH_SIZE)
        return x, y

    def run(number):
        given = data(number)
        x, y = given if form == "arrays" else (given, None)
        return predict(state, x, config), evaluate(state, x, config, y=y)

    run(NUM_EXAMPLES)
    calls.clear()
    outputs, _ = run(NUM_EXAMPLES - BATCH_SIZE)
    assert outputs.shape == (NUM_EXAMPLES - BATCH_SIZE, 3)
    assert not calls


def test_calls_whose_outputs_are_large_have_few_batches(arrays, monkeypatch):
    state = make_state()
    config = make_config(steps_per_execution=None, global_batch_size=BATCH_SIZE)
    expected = predict(state, arrays[0], config)
    calls = []
    predict_joined = predict_function.PredictFunction._predict_joined

    def counted(self, iterator, size):
        calls.append(size)
        return predict_joined(self, iterator, size)

    monkeypatch.setattr(predict_function.PredictFunction, "_predict_joined", counted)
    np.testing.assert_array_equal(predict(state, arrays[0], config), expected)
    assert max(calls) > 1
    calls.clear()
    monkeypatch.setattr(predict_function, "MAX_OUTPUT_BYTES", 1)
    small = make_state()
    for data in (arrays[0], tf.data.Dataset.from_tensor_slices(arrays[0]).batch(BATCH_SIZE)):
        np.testing.assert_array_equal(predict(small, data, config), expected)
    assert calls[-1] == 1


class Recorded(keras.callbacks.Callback):
    """Notes each moment of predict, and stops after the batch `stop_at`."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.calls = []
        self.stop_at = stop_at

    def on_predict_batch_begin(self, batch, logs=None):
        self.calls.append(("begin", batch))

    def on_predict_batch_end(self, batch, logs=None):
        self.calls.append(
            ("end", min(batch, NUM_BATCHES - 1), np.asarray(logs["outputs"]).tolist())
        )
        if self.stop_at is not None and batch >= self.stop_at:
            self.model.stop_predicting = True


@pytest.mark.parametrize("stop_at", [None, 2])
@pytest.mark.parametrize("steps_per_execution", [None, 3])
def test_callbacks_see_what_they_see_in_keras(arrays, stop_at, steps_per_execution):
    data = tf.data.Dataset.from_tensor_slices(arrays[0]).batch(BATCH_SIZE)
    model = make_compiled()
    model.steps_per_execution = steps_per_execution or 1
    keras_callback, callback = Recorded(stop_at), Recorded(stop_at)
    expected = model.predict(data, verbose=0, callbacks=[keras_callback])
    config = make_config(steps_per_execution=steps_per_execution)
    found = predict(make_state(), data, config, hooks=[KerasCallbacks([callback])])
    np.testing.assert_array_equal(found, expected)
    assert callback.calls == keras_callback.calls


@pytest.mark.parametrize("input", ["streamed", "auto"])
def test_evaluate_of_arrays_equals_keras(arrays, input):
    x, y, weight = arrays
    model = make_compiled()
    expected = model.evaluate(
        x, y, sample_weight=weight, batch_size=BATCH_SIZE, verbose=0, return_dict=True
    )
    config = make_config(global_batch_size=BATCH_SIZE, input=input)
    for shuffle in (None, False, True):
        if shuffle is None:
            found = evaluate(make_state(), x, config, y=y, sample_weight=weight)
        else:
            data = make_pipeline((x, y), sample_weight=weight, shuffle=shuffle)
            found = evaluate(make_state(), data, config)
        if shuffle:
            assert found == pytest.approx(expected, rel=1e-5)
        else:
            assert found == expected


def test_a_dataset_whose_arrays_were_replaced_gives_the_new_ones(arrays):
    x, y, _ = arrays
    dataset = make_pipeline((x, y), shuffle=False)
    state, config = make_tiny(), make_config()
    before = predict(state, dataset, config)
    expected = predict(state, make_pipeline((x[::-1], y[::-1]), shuffle=False), config)
    dataset.replace(x[::-1], y[::-1])
    np.testing.assert_array_equal(predict(state, dataset, config), expected)
    assert not np.array_equal(before, expected)


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_batches_of_a_model_that_keeps_a_state_come_in_their_order(kind):
    x = np.random.default_rng(0).normal(size=(64 * 4, 5, 3)).astype("float32")
    keras.utils.set_random_seed(0)
    layers = [keras.layers.LSTM(7, stateful=True), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((5, 3), batch_size=4), *layers])
    expected = model.predict(x, batch_size=4, verbose=0)
    layers[0].reset_states()
    data = x if kind == "arrays" else tf.data.Dataset.from_tensor_slices(x).batch(4)
    config = make_config(steps_per_execution=None, global_batch_size=4)
    assert np.array_equal(predict(TrainState(model, "sgd", loss="mse"), data, config), expected)


def test_sums_have_the_same_bits_in_each_prediction():
    """TensorFlow would split them to save memory, and add in any order, as in Keras."""
    x = np.random.default_rng(0).normal(size=(16_384, 8)).astype("float32")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,), batch_size=len(x))
    hidden = keras.layers.Dense(2048)(inputs)
    # 128 MB each.
    total = hidden + keras.ops.tanh(hidden) + keras.ops.sin(hidden) + hidden * hidden
    state = TrainState(keras.Model(inputs, keras.layers.Dense(1)(total)), "sgd", loss="mse")
    config = make_config(global_batch_size=len(x))
    first, *others = (predict(state, x, config) for _ in range(4))
    assert all(np.array_equal(first, other) for other in others)
