"""Errors while a step is traced or runs: the cause in a sentence; what is not known stays."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from tests.engine.messages import raises_in_one_line
from tests.engine.nets import build_dense, make_config, make_tiny, mirrored

X = np.ones((8, 4), "float32")
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1])
needs_cpu = pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="on a GPU, the loss is NaN instead"
)


def batches(*parts):
    dataset = tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0]).batch(4)
    # An iterator that an exception kept alive waits for its autotuner, up to a minute.
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def tiny_under(strategy):
    with strategy.scope():
        return make_tiny()


def fit(state, dataset, **fields):
    return engine.fit(state, dataset, make_config(**fields))


def evaluate(state, dataset, **fields):
    return engine.evaluate(state, dataset, make_config(**fields))


def validate(state, dataset, **fields):
    return engine.fit(state, batches(X, LABELS), make_config(), validation_data=dataset)


@needs_cpu
@pytest.mark.parametrize(
    ("call", "make_strategy", "label"),
    [
        (fit, tf.distribute.get_strategy, 7),
        (fit, tf.distribute.get_strategy, -1),
        (evaluate, tf.distribute.get_strategy, 7),
        (validate, tf.distribute.get_strategy, 7),
        (fit, mirrored, 7),
        (evaluate, mirrored, -1),
    ],
)
def test_a_label_without_an_output_is_named_with_the_range(call, make_strategy, label):
    dataset = batches(X, np.where(np.arange(8) == 5, label, LABELS))
    raises_in_one_line(
        f"A label is {label}",
        "0 to 2",
        "give the last layer",
        call=lambda: call(tiny_under(make_strategy()), dataset),
    )


@needs_cpu
def test_a_label_is_named_in_eager_steps_too():
    dataset = batches(X, LABELS + 1)
    raises_in_one_line(
        "A label is 3", "0 to 2", call=lambda: fit(make_tiny(), dataset, run_eagerly=True)
    )


@needs_cpu
def test_where_replicas_hide_the_cause_and_labels_are_right_a_note_says_what_to_do():
    def step(state, batch):
        tf.debugging.assert_less(batch[0], 0.5)
        return engine.train_step(state, batch)

    with pytest.raises(tf.errors.OpError) as raised:
        engine.fit(tiny_under(mirrored()), batches(X, LABELS), make_config(), train_step=step)
    is_hidden = isinstance(raised.value, tf.errors.CancelledError)
    assert is_hidden == any(
        "without a strategy" in n for n in getattr(raised.value, "__notes__", [])
    )


@needs_cpu
def test_an_id_without_a_row_is_named_with_the_layer():
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(9, 2, name="words"),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    state, ids = engine.TrainState(model, "sgd", loss="mse"), np.full((8, 4), 9)
    parts = "words looks up 9", "0 to 8", "input_dim"
    raises_in_one_line(*parts, call=lambda: fit(state, batches(ids, LABELS)))
    raises_in_one_line(*parts, call=lambda: engine.predict(state, ids, make_config()))


def test_shapes_that_the_loss_cannot_combine_are_named():
    weighted = batches(X, LABELS, np.ones((8, 2), "float32"))
    raises_in_one_line("[4,2]", "sample weights", call=lambda: fit(make_tiny(), weighted))
    state = engine.TrainState(build_dense(), "sgd", loss="mse")
    raises_in_one_line("'mse'", "[4,3]", call=lambda: fit(state, batches(X, LABELS)))


def test_labels_that_are_strings_are_named():
    words = np.array(["cat", "dog"] * 4, object)
    raises_in_one_line("strings", "StringLookup", call=lambda: fit(make_tiny(), batches(X, words)))


@pytest.mark.parametrize("call", [fit, evaluate, validate])
def test_missing_labels_are_named_with_the_loss(call):
    raises_in_one_line(
        "no labels", "'sparse_categorical_crossentropy'", "(x, y)",
        call=lambda: call(make_tiny(), batches(X)),
    )  # fmt: skip


def test_a_step_may_make_its_own_labels_as_a_model_may_in_fit():
    def train_step(state, x):
        with tf.GradientTape() as tape:
            y_pred = state.call_model(x, training=True)
            loss = state.compute_loss(x, x, y_pred)
        state.apply_gradients(tape.gradient(loss, state.model.trainable_variables))
        return state.update_metrics(loss, x, x, y_pred)

    class Autoencoder(keras.Sequential):
        def train_step(self, x):
            return super().train_step((x, x))

    def build(kind):
        keras.utils.set_random_seed(1)
        model = kind([keras.Input((4,)), keras.layers.Dense(4)])
        model.compile("sgd", "mse")
        return model

    data = batches(X)
    state = engine.TrainState(build(keras.Sequential))
    ours = engine.fit(state, data, make_config(epochs=2), train_step=train_step).history
    theirs = build(Autoencoder).fit(data, epochs=2, shuffle=False, verbose=0).history
    assert ours["loss"] == theirs["loss"]
    assert (
        fit(engine.TrainState(build(Autoencoder)), data, epochs=2).history["loss"] == ours["loss"]
    )


class Reconstructs(keras.Sequential):
    """Makes its labels of the inputs."""

    def train_step(self, x):
        return super().train_step((x, x))

    def test_step(self, x):
        return super().test_step((x, x))


def build_reconstructing():
    keras.utils.set_random_seed(1)
    model = Reconstructs([keras.Input((4,)), keras.layers.Dense(4)])
    model.compile("sgd", "mse", metrics=["mae"])
    return model


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_metrics_of_labels_that_a_model_makes_are_those_of_fit(run_eagerly):
    data = batches(X)
    theirs = build_reconstructing().fit(
        data, validation_data=data, epochs=2, shuffle=False, verbose=0
    )
    state = engine.TrainState(build_reconstructing())
    config = make_config(epochs=2, run_eagerly=run_eagerly)
    ours = engine.fit(state, data, config, validation_data=data).history
    assert ours.keys() == theirs.history.keys()
    for name, values in theirs.history.items():
        np.testing.assert_allclose(ours[name], values, rtol=1e-5 if run_eagerly else 0)


def test_under_replicas_the_dataset_must_have_them():
    with mirrored().scope():
        state = engine.TrainState(build_reconstructing())
    raises_in_one_line(
        "has no labels", "dataset.map(lambda x: (x, x))", call=lambda: fit(state, batches(X))
    )


@pytest.mark.parametrize("arguments", [{}, {"optimizer": "sgd"}, {"metrics": ["accuracy"]}])
def test_no_loss_is_named(arguments):
    for call in (fit, evaluate):
        state = engine.TrainState(build_dense(), **arguments)
        raises_in_one_line(
            "no loss", "loss=...", call=lambda s=state, c=call: c(s, batches(X, LABELS))
        )


def test_one_optimizer_for_two_models_is_named():
    optimizer = keras.optimizers.SGD()
    states = [
        engine.TrainState(build_dense(), optimizer, loss="sparse_categorical_crossentropy")
        for _ in range(2)
    ]
    fit(states[0], batches(X, LABELS))
    raises_in_one_line(
        "/kernel", "another model's", "Create an optimizer for each TrainState",
        call=lambda: fit(states[1], batches(X, LABELS)),
    )  # fmt: skip


class LabelsAreWrong(Exception):
    pass


@pytest.mark.parametrize("error", [LabelsAreWrong("x"), ValueError("a bug"), KeyError("None")])
def test_a_bug_in_a_loss_stays_what_it_is_with_its_traceback(error):
    def buggy_loss(y, y_pred):
        raise error

    state = engine.TrainState(build_dense(), "sgd", loss=buggy_loss)
    with pytest.raises(type(error)) as raised:
        fit(state, batches(X, LABELS))
    assert raised.value is error
    assert "buggy_loss" in [entry.name for entry in raised.traceback]


def test_the_sentence_has_the_traceback_of_the_error():
    def my_loss(y, y_pred):
        return tf.square(y - y_pred)

    state = engine.TrainState(build_dense(), "sgd", loss=my_loss)
    with pytest.raises(ValueError, match="'my_loss' cannot compare") as raised:
        fit(state, batches(X, np.ones((8, 2), "float32")))
    assert "my_loss" in [entry.name for entry in raised.traceback]


def test_many_trainings_that_each_trace_once_do_not_make_tensorflow_warn(caplog):
    logger = tf.get_logger()
    logger.addHandler(caplog.handler)
    try:
        for _ in range(7):
            history = fit(make_tiny(), batches(X, LABELS))
            assert history.num_traces == 1
    finally:
        logger.removeHandler(caplog.handler)
    assert "retracing" not in caplog.text
