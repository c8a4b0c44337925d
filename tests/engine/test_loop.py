"""fit, evaluate and predict behave as Keras's do; hooks see what they are promised."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.data import pipeline
from gradloop.engine.config import TrainConfig
from gradloop.engine.hooks import Hook, LambdaHook, SaveCheckpoint
from gradloop.engine.loop import evaluate, fit, predict
from gradloop.engine.source import Planner
from gradloop.engine.state import TrainState
from gradloop.engine.storage import checkpoint
from gradloop.engine.strategy import make_strategy

NUM_EXAMPLES = 26
BATCH_SIZE = 4
NUM_BATCHES = 7  # the last one has 2 examples


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM_EXAMPLES, 4)).astype("float32")
    y = rng.integers(0, 3, NUM_EXAMPLES)
    weight = rng.uniform(0.1, 2.0, NUM_EXAMPLES).astype("float32")
    return x, y, weight


@pytest.fixture
def dataset(arrays):
    return tf.data.Dataset.from_tensor_slices(arrays[:2]).batch(BATCH_SIZE)


def make_config(**fields):
    return TrainConfig(**{"epochs": 1, "steps_per_execution": 3, **fields})


def build_model():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def build_dense():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])


def compile_arguments():
    return {
        "optimizer": keras.optimizers.SGD(0.1, momentum=0.9),
        "loss": keras.losses.SparseCategoricalCrossentropy(),
        "metrics": [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    }


def make_state(build=build_model, arguments=compile_arguments, strategy=None):
    with (strategy or tf.distribute.get_strategy()).scope():
        return TrainState(build(), **arguments())


def make_compiled(build=build_model, arguments=compile_arguments, strategy=None):
    with (strategy or tf.distribute.get_strategy()).scope():
        model = build()
        model.compile(**arguments())
    return model


def two_cpus():
    return make_strategy(TrainConfig(strategy="mirrored", num_replicas=2))


def as_int(variable):
    return int(variable.numpy())


def make_tiny():
    return TrainState(build_dense(), "sgd", loss="sparse_categorical_crossentropy")


def assert_same_history(actual, expected):
    assert list(actual) == list(expected)
    for name in expected:
        np.testing.assert_array_equal(
            np.array(actual[name]), np.array(expected[name]), err_msg=name
        )


def assert_same_weights(model, expected):
    for weight, other in zip(model.variables, expected.variables, strict=True):
        np.testing.assert_array_equal(weight.numpy(), other.numpy(), err_msg=weight.path)


def assert_fits_alike(
    train_ds,
    *,
    build=build_model,
    arguments=compile_arguments,
    strategy=None,
    val_ds=None,
    **fields,
):
    """Trains with Keras and with the engine: all bits of history and weights are equal."""
    class_weight = fields.pop("class_weight", None)
    expected = make_compiled(build, arguments, strategy)
    names = {"epochs", "initial_epoch", "steps_per_epoch", "validation_freq", "validation_steps"}
    keras_history = expected.fit(
        train_ds, validation_data=val_ds, class_weight=class_weight, verbose=0, shuffle=False,
        **{name: value for name, value in fields.items() if name in names},
    )  # fmt: skip
    state = make_state(build, arguments, strategy)
    history = fit(
        state, train_ds, make_config(**fields), validation_data=val_ds, class_weight=class_weight
    )
    assert_same_history(history.history, keras_history.history)
    assert history.epoch == keras_history.epoch
    assert_same_weights(state.model, expected)
    assert as_int(state.optimizer.iterations) == sum(history.epoch_steps) > 0
    return state, history


# Epochs and steps.


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": 3, "validation_freq": 2, "validation_steps": 2},
        {"epochs": 3, "initial_epoch": 1, "steps_per_execution": 1},
        {
            "epochs": 3,
            "steps_per_epoch": 3,
            "steps_per_execution": 2,
        },  # 7 batches: the third is cut
        {"epochs": 2, "steps_per_epoch": 7, "steps_per_execution": "auto"},
        {"epochs": 2, "steps_per_epoch": 9, "steps_per_execution": 32},
    ],
    ids=lambda fields: "-".join(f"{name}={value}" for name, value in fields.items()),
)
@pytest.mark.filterwarnings("ignore:Your input ran out of data", "ignore:The data ended after")
def test_epochs_and_steps_mean_what_they_mean_to_keras(dataset, fields):
    assert_fits_alike(dataset, val_ds=dataset, **fields)


@pytest.mark.parametrize("steps_per_epoch", [None, 4])
@pytest.mark.filterwarnings("ignore:Your input ran out of data", "ignore:The data ended after")
def test_unknown_cardinality_is_trained_to_the_end(dataset, steps_per_epoch):
    unknown = dataset.filter(lambda x, y: True)
    # Plain SGD, no dropout: fit starts a step on the batch that is not there, so that its
    # iterations and its dropout masks move on by one too many.
    _, history = assert_fits_alike(
        unknown, build=build_dense, arguments=lambda: {**compile_arguments(), "optimizer": "sgd"},
        val_ds=unknown, epochs=2, steps_per_epoch=steps_per_epoch,
    )  # fmt: skip
    assert history.epoch_steps == ([7, 7] if steps_per_epoch is None else [4, 3])


def test_generator_is_read_anew_each_epoch(arrays):
    x, y, _ = arrays

    def generate():
        yield from ((x[i : i + 5], y[i : i + 5]) for i in range(0, 20, 5))

    signature = (tf.TensorSpec((None, 4), tf.float32), tf.TensorSpec((None,), tf.int64))
    generated = tf.data.Dataset.from_generator(generate, output_signature=signature)
    history = fit(make_state(), generated, make_config(epochs=3))
    assert history.epoch_steps == [4, 4, 4]


def test_infinite_data_goes_on_where_the_last_epoch_stopped(dataset):
    assert_fits_alike(dataset.repeat(), epochs=3, steps_per_epoch=5, val_ds=dataset)


def test_infinite_data_needs_steps(dataset):
    with pytest.raises(ValueError, match="no end: set steps_per_epoch"):
        fit(make_state(), dataset.repeat(), make_config())
    with pytest.raises(ValueError, match="validation_steps"):
        fit(make_state(), dataset, make_config(), validation_data=dataset.repeat())


def test_too_few_data_for_steps_per_epoch_warns_once_an_epoch(dataset):
    with pytest.warns(UserWarning, match="after 7 of 9 steps") as caught:
        history = fit(make_state(), dataset, make_config(epochs=2, steps_per_epoch=9))
    assert history.epoch_steps == [7, 7]
    assert len([w for w in caught if "of 9 steps" in str(w.message)]) == 2


@pytest.mark.parametrize("steps_per_epoch", [None, 2])
@pytest.mark.parametrize("is_known", [True, False])
def test_empty_data_set_is_an_error(dataset, is_known, steps_per_epoch):
    empty = dataset.take(0) if is_known else dataset.filter(lambda x, y: False)
    state = make_state()
    with pytest.raises(ValueError, match="no batch"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(state, empty, make_config(steps_per_epoch=steps_per_epoch))


@pytest.mark.parametrize("is_known", [True, False])
def test_empty_validation_or_evaluation_is_an_error(dataset, is_known):
    empty = dataset.take(0) if is_known else dataset.filter(lambda x, y: False)
    with pytest.raises(ValueError, match="no batch"):
        evaluate(make_state(), empty, make_config())
    with pytest.raises(ValueError, match="no batch"):
        fit(make_state(), dataset, make_config(), validation_data=empty)


# Weights, structures, losses and metrics.


def test_sample_weights(arrays):
    weighted = tf.data.Dataset.from_tensor_slices(arrays).batch(BATCH_SIZE)

    def arguments():
        metrics = [keras.metrics.SparseCategoricalAccuracy(name="weighted")]
        return {**compile_arguments(), "weighted_metrics": metrics}

    _, history = assert_fits_alike(weighted, arguments=arguments, val_ds=weighted)
    assert history.history["accuracy"] != history.history["weighted"]


def test_class_weights(dataset):
    _, weighted = assert_fits_alike(dataset, class_weight={0: 1.0, 2: 5.0}, val_ds=dataset)
    plain = fit(make_state(), dataset, make_config())
    assert weighted.history["loss"] != plain.history["loss"]


def build_two_by_two():
    keras.utils.set_random_seed(1)
    inputs = {"a": keras.Input((4,), name="a"), "b": keras.Input((2,), name="b")}
    h = keras.layers.Concatenate()([inputs["a"], inputs["b"]])
    h = keras.layers.Dense(6, activation="tanh")(h)
    outputs = {
        "label": keras.layers.Dense(3, activation="softmax", name="label")(h),
        "value": keras.layers.Dense(1, name="value")(h),
    }
    return keras.Model(inputs, outputs)


def two_by_two_arguments():
    return {
        "optimizer": keras.optimizers.SGD(0.05, momentum=0.9),
        "loss": {"label": "sparse_categorical_crossentropy", "value": "mse"},
        "loss_weights": {"label": 0.3, "value": 2.0},
        "metrics": {"label": ["accuracy"], "value": ["mae"]},
    }


def test_inputs_and_outputs_in_dicts(arrays):
    x, y, _ = arrays
    structure = ({"a": x, "b": x[:, :2]}, {"label": y, "value": x.sum(1, keepdims=True)})
    train_ds = tf.data.Dataset.from_tensor_slices(structure).batch(BATCH_SIZE)
    _, history = assert_fits_alike(
        train_ds, build=build_two_by_two, arguments=two_by_two_arguments, val_ds=train_ds
    )
    assert {"loss", "label_loss", "value_loss", "label_accuracy", "val_value_mae"} <= set(
        history.history
    )


def test_inputs_and_outputs_in_lists(arrays):
    x, y, weight = arrays

    def build():
        keras.utils.set_random_seed(1)
        inputs = [keras.Input((4,)), keras.Input((2,))]
        h = keras.layers.Dense(6)(keras.layers.Concatenate()(inputs))
        heads = [keras.layers.Dense(3, "softmax", name="p"), keras.layers.Dense(1, name="q")]
        return keras.Model(inputs, [head(h) for head in heads])

    def arguments():
        losses = ["sparse_categorical_crossentropy", "mse"]
        return {"optimizer": "rmsprop", "loss": losses, "loss_weights": [1.0, 0.5]}

    structure = ((x, x[:, :2]), (y, x.sum(1, keepdims=True)), (weight, weight[::-1].copy()))
    train_ds = tf.data.Dataset.from_tensor_slices(structure).batch(BATCH_SIZE)
    assert_fits_alike(train_ds, build=build, arguments=arguments)


def test_add_loss_and_regularizers(dataset):
    class Activity(keras.layers.Layer):
        def call(self, x):
            self.add_loss(0.1 * keras.ops.mean(keras.ops.square(x)))
            return x

    def build():
        keras.utils.set_random_seed(1)
        dense = keras.layers.Dense(3, "softmax", kernel_regularizer=keras.regularizers.L2(0.01))
        return keras.Sequential([keras.Input((4,)), Activity(), dense])

    state, history = assert_fits_alike(dataset, build=build, val_ds=dataset)
    assert len(state.model.losses) == 2
    plain = fit(make_state(build_dense), dataset, make_config())
    assert history.history["loss"][0] > plain.history["loss"][0] + 0.05


def test_losses_that_come_from_add_loss_alone(arrays):
    x = tf.data.Dataset.from_tensor_slices(arrays[0]).batch(BATCH_SIZE)

    class Autoencoder(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(4)

        def call(self, x):
            y = self.dense(x)
            self.add_loss(keras.ops.mean(keras.ops.square(x - y)))
            return y

    def build():
        keras.utils.set_random_seed(1)
        return keras.Sequential([keras.Input((4,)), Autoencoder()])

    _, history = assert_fits_alike(
        x, build=build, arguments=lambda: {"optimizer": "sgd"}, epochs=2, val_ds=x
    )
    assert history.history["loss"][1] < history.history["loss"][0]


class NumBatches(keras.metrics.Metric):
    """A custom metric that counts its updates."""

    def __init__(self):
        super().__init__(name="num_batches")
        self.count = self.add_variable(shape=(), initializer="zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.count.assign_add(1.0)

    def result(self):
        return self.count


def test_custom_metrics_and_metrics_that_are_no_scalars(arrays):
    x, y, _ = arrays
    one_hot = keras.utils.to_categorical(y, 3)
    train_ds = tf.data.Dataset.from_tensor_slices((x, one_hot)).batch(BATCH_SIZE)

    def arguments():
        metrics = [keras.metrics.F1Score(name="f1"), NumBatches()]
        return {"optimizer": "adam", "loss": "categorical_crossentropy", "metrics": metrics}

    _, history = assert_fits_alike(train_ds, arguments=arguments, val_ds=train_ds, epochs=2)
    assert np.shape(history.history["f1"]) == (2, 3)
    assert history.history["num_batches"] == [NUM_BATCHES, NUM_BATCHES]  # reset each epoch
    assert history.history["val_num_batches"] == [NUM_BATCHES, NUM_BATCHES]


# Models that are more than a list of layers.


class Subclassed(keras.Model):
    """Not built until it is called; its `call` knows no `training`."""

    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(8, activation="relu")
        self.dropout = keras.layers.Dropout(0.3)
        self.head = keras.layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.head(self.dropout(self.hidden(x)))


class WithOwnLoss(Subclassed):
    """Overrides `compute_loss`, without `training` among its arguments."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return 2.0 * super().compute_loss(x, y, y_pred, sample_weight)


class WithOwnMetrics(Subclassed):
    """Overrides `compute_metrics`, and adds a metric that it updates itself."""

    def __init__(self):
        super().__init__()
        self.confidence = keras.metrics.Mean(name="confidence")

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self.confidence.update_state(keras.ops.max(y_pred, axis=-1))
        return super().compute_metrics(x, y, y_pred, sample_weight)


class WithMetricsProperty(Subclassed):
    """Overrides `metrics`: its own metric stands before Keras's loss tracker."""

    def __init__(self):
        super().__init__()
        self.entropy = keras.metrics.Mean(name="entropy")

    @property
    def metrics(self):
        return [self.entropy, *(m for m in super().metrics if m is not self.entropy)]

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self.entropy.update_state(-keras.ops.sum(y_pred * keras.ops.log(y_pred), axis=-1))
        return super().compute_metrics(x, y, y_pred, sample_weight)


@pytest.mark.parametrize(
    "model_class", [Subclassed, WithOwnLoss, WithOwnMetrics, WithMetricsProperty]
)
def test_subclassed_models(dataset, model_class):
    def build():
        keras.utils.set_random_seed(1)
        return model_class()

    _, history = assert_fits_alike(dataset, build=build, val_ds=dataset, epochs=2)
    assert all(loss > 0 for loss in history.history["loss"])


def test_unbuilt_model_under_replicas(dataset):
    def build():
        keras.utils.set_random_seed(1)
        return Subclassed()

    assert_fits_alike(dataset, build=build, strategy=two_cpus(), val_ds=dataset)


def test_own_train_step_of_a_keras_model_is_not_ignored_in_silence(dataset):
    class WithTrainStep(Subclassed):
        def train_step(self, data):
            return {"mine": tf.constant(1.0)}

    with pytest.raises(ValueError, match="train_step"):
        fit(make_state(WithTrainStep), dataset, make_config())


# A person's own step.


def test_logs_of_a_custom_step_are_those_of_the_last_step(dataset):
    def train_step(state, batch):
        x, y = batch
        with tf.GradientTape() as tape:
            y_pred = state.model(x, training=True)
            loss = state.compute_loss(x, y, y_pred)
        state.apply_gradients(tape.gradient(loss, state.model.trainable_variables))
        logs = state.update_metrics(loss, x, y, y_pred)
        return {"num_examples": tf.shape(x)[0], **logs, "a_constant": 3.0}

    state = make_state()
    history = fit(state, dataset, make_config(epochs=2), train_step=train_step)
    expected = fit(make_state(), dataset, make_config(epochs=2))
    assert list(history.history) == ["a_constant", "accuracy", "loss", "num_examples"]
    assert history.history["loss"] == expected.history["loss"]  # the metric's: of the whole epoch
    assert history.history["num_examples"] == [2.0, 2.0]  # the last, partial batch's
    assert history.history["a_constant"] == [3.0, 3.0]


def test_logs_of_a_custom_step_are_the_mean_over_replicas(dataset):
    def train_step(state, batch):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return {"replica": tf.cast(replica, tf.float32), "is_second": replica == 1, "id": replica}

    strategy = two_cpus()
    history = fit(make_state(strategy=strategy), dataset, make_config(), train_step=train_step)
    assert history.history == {"id": [0.5], "is_second": [0.5], "replica": [0.5]}


@pytest.mark.parametrize(
    ("logs", "message"),
    [
        ({"per_example": tf.ones([4])}, r"'per_example' with shape \(4,\).*scalars"),
        (tf.constant(1.0), "dict"),
    ],
)
def test_logs_that_are_no_scalars_are_an_error(dataset, logs, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fit(make_state(), dataset, make_config(), train_step=lambda state, batch: logs)


def test_step_without_logs(dataset):
    history = fit(make_state(), dataset, make_config(), train_step=lambda state, batch: None)
    assert history.history == {}
    assert history.epoch_steps == [NUM_BATCHES]


# Traces.


def test_one_trace_for_training_and_one_for_validation(dataset):
    history = fit(make_tiny(), dataset, make_config(epochs=3), validation_data=dataset)
    assert history.num_traces == 2
    assert (
        history.epoch_steps == [NUM_BATCHES] * 3
    )  # executions of 3, 3 and 1; a partial last batch


def test_step_is_traced_once_whatever_the_sizes(dataset):
    calls = []

    def train_step(state, batch):
        calls.append(batch)
        return {}

    config = make_config(epochs=4, steps_per_execution="auto")
    fit(make_tiny(), dataset, config, train_step=train_step, hooks=[Every(5)])
    assert len(calls) == 1


# Hooks.


class Every(Hook):
    """Notes where executions end."""

    def __init__(self, every_steps=None):
        self.every_steps = every_steps
        self.ends = []

    def on_execution_end(self, info):
        self.ends.append(info.progress.num_steps_completed)


class Recorder(Hook):
    """Notes each moment in a list that hooks may share."""

    def __init__(self, moments, name=""):
        for moment in (
            "on_train_begin", "on_epoch_begin", "on_execution_end", "on_epoch_end",
            "on_eval_begin", "on_eval_end", "on_train_end",
        ):  # fmt: skip
            setattr(self, moment, lambda info, moment=moment: moments.append(name + moment[3:]))


def test_order_of_moments(dataset):
    moments = []
    config = make_config(epochs=2, steps_per_execution=4, validation_freq=2)
    fit(make_tiny(), dataset, config, validation_data=dataset, hooks=[Recorder(moments)])
    epoch = ["epoch_begin", "execution_end", "execution_end"]
    evaluation = ["eval_begin", "eval_end"]
    end = ["epoch_end"]
    assert moments == ["train_begin", *epoch, *end, *epoch, *evaluation, *end, "train_end"]


def test_hooks_are_called_in_the_order_of_the_list(dataset):
    moments = []
    hooks = [Recorder(moments, "1"), Recorder(moments, "2")]
    fit(make_tiny(), dataset.take(1), make_config(), hooks=hooks)
    assert moments[::2] == [moment.replace("2", "1") for moment in moments[1::2]]
    assert [moment[0] for moment in moments] == ["1", "2"] * 5


def test_logs_lag_one_execution_and_logs_step_says_which(dataset):
    seen = []

    def note(info):
        seen.append((info.progress.num_steps_completed, info.logs_step, dict(info.logs)))

    hook = LambdaHook(on_execution_end=note, on_epoch_end=note)
    fit(make_tiny(), dataset, make_config(epochs=2), hooks=[hook])
    steps = [(done, logged) for done, logged, _ in seen]
    assert steps == [(3, 0), (6, 3), (7, 6), (7, 7), (10, 7), (13, 10), (14, 13), (14, 14)]
    assert seen[0][2] == {} == seen[4][2]
    # What was logged of step 3 is the result over the first three batches.
    expected = make_tiny()
    first = fit(expected, dataset.take(3), make_config())
    assert seen[1][2]["loss"] == first.history["loss"][0]


def test_progress_that_hooks_see(dataset):
    seen = []
    note = lambda info: seen.append(  # noqa: E731
        (info.progress.epoch, info.progress.step, info.progress.num_steps_completed,
         info.progress.num_epochs_completed, info.execution_steps)
    )  # fmt: skip
    hook = LambdaHook(on_epoch_begin=note, on_execution_end=note, on_epoch_end=note)
    state = make_tiny()
    fit(state, dataset, make_config(epochs=2, steps_per_execution=5), hooks=[hook])
    assert seen == [
        (0, 0, 0, 0, 0), (0, 5, 5, 0, 5), (0, 7, 7, 0, 2), (0, 7, 7, 1, 0),
        (1, 0, 7, 1, 0), (1, 5, 12, 1, 5), (1, 7, 14, 1, 2), (1, 7, 14, 2, 0),
    ]  # fmt: skip
    assert (state.progress.num_epochs, state.progress.steps_per_epoch) == (2, NUM_BATCHES)


def test_periods_of_hooks_cut_executions(dataset):
    hook, other = Every(5), Every(3)
    fit(make_tiny(), dataset, make_config(epochs=2, steps_per_execution=32), hooks=[hook, other])
    assert hook.ends == [3, 5, 6, 7, 9, 10, 12, 14]


def test_on_train_end_comes_after_an_exception(dataset):
    moments = []

    def fail(info):
        raise RuntimeError("mine")

    hooks = [Recorder(moments), LambdaHook(on_execution_end=fail)]
    with pytest.raises(RuntimeError, match="mine"):
        fit(make_tiny(), dataset, make_config(), hooks=hooks)
    assert moments == ["train_begin", "epoch_begin", "execution_end", "train_end"]


def test_stop_request_ends_after_validation_and_epoch_end(dataset):
    moments = []
    # The second execution of two: the stop comes where fit's callbacks would set stop_training.
    stop = LambdaHook(
        on_execution_end=lambda info: info.progress.step == 6 and info.request_stop("enough")
    )
    state = make_tiny()
    history = fit(
        state, dataset, make_config(epochs=3), validation_data=dataset,
        hooks=[Recorder(moments), stop],
    )  # fmt: skip
    assert moments == [
        "train_begin", "epoch_begin", "execution_end", "execution_end", "eval_begin", "eval_end",
        "epoch_end", "train_end",
    ]  # fmt: skip
    assert history.stop_reason == "enough"
    assert history.epoch_steps == [6]
    # The validation is a whole one.
    logs = evaluate(state, dataset, make_config())
    assert history.history["val_loss"] == [logs["loss"]]


class StopTraining(keras.callbacks.Callback):
    """Keras's way to ask for a stop."""

    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = batch == 5


def test_stop_request_leaves_what_stop_training_leaves(dataset):
    def arguments():
        return {
            "optimizer": keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5),
            "loss": "mse",
        }

    expected = make_compiled(arguments=arguments)
    data = dataset.map(lambda x, y: (x, tf.one_hot(y, 3)))
    keras_history = expected.fit(
        data, validation_data=data, epochs=2, verbose=0, shuffle=False, callbacks=[StopTraining()]
    )
    state = make_state(arguments=arguments)
    stop = LambdaHook(
        on_execution_end=lambda info: info.progress.step == 6 and info.request_stop("enough")
    )
    history = fit(state, data, make_config(epochs=2), validation_data=data, hooks=[stop])
    assert_same_history(history.history, keras_history.history)
    assert_same_weights(state.model, expected)  # the averages of the weights among them


@pytest.mark.parametrize("moment", ["on_execution_end", "on_eval_end"])
def test_immediate_stop_leaves_out_validation_and_epoch_end(dataset, moment):
    moments = []
    stop = LambdaHook(**{moment: lambda info: info.request_stop("now", immediately=True)})
    state = make_tiny()
    history = fit(
        state, dataset, make_config(epochs=3), validation_data=dataset,
        hooks=[Recorder(moments), stop],
    )  # fmt: skip
    assert "epoch_end" not in moments
    assert ("eval_begin" in moments) == (moment == "on_eval_end")
    assert moments[-1] == "train_end"
    assert history.history == {}
    assert history.stop_reason == "now"
    assert state.progress.num_epochs_completed == 0


def test_stop_at_the_end_of_an_epoch(dataset):
    stop = LambdaHook(on_epoch_end=lambda info: info.progress.epoch == 1 and info.request_stop("2"))
    history = fit(make_tiny(), dataset, make_config(epochs=5), hooks=[stop])
    assert history.epoch == [0, 1]


# Resumption.


class StopAfter(Hook):
    """Ends the run at once after a number of steps."""

    def __init__(self, num_steps):
        self.every_steps = num_steps

    def on_execution_end(self, info):
        if info.progress.num_steps_completed == self.every_steps:
            info.request_stop("later", immediately=True)


def make_pipeline(arrays):
    """Starts at any (epoch, step); each epoch has its own order."""
    x, y = arrays[:2]
    return pipeline.make_dataset(x, y, global_batch_size=BATCH_SIZE, shuffle=True)


@pytest.mark.parametrize("stop_at", [6, 7, 10])  # of 7 steps an epoch
def test_resumed_run_ends_with_the_same_weights_and_logs(arrays, dataset, stop_at, tmp_path):
    whole, config = make_state(), make_config(epochs=3)
    expected = fit(whole, make_pipeline(arrays), config, validation_data=dataset).history

    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    hooks = [StopAfter(stop_at), SaveCheckpoint(tmp_path)]
    stopped = fit(make_state(), make_pipeline(arrays), config, hooks=hooks, validation_data=dataset)

    keras.utils.clear_session(free_memory=False)
    state = make_state()
    state.build(dataset.element_spec)
    checkpoint.restore(tmp_path, state)
    assert state.progress.num_steps_completed == as_int(state.optimizer.iterations) == stop_at
    resumed = fit(state, make_pipeline(arrays), config, validation_data=dataset, resume=True)
    assert as_int(state.optimizer.iterations) == 21
    assert_same_weights(state.model, whole.model)
    for name, values in expected.items():
        # Of an epoch that was interrupted, the logs are those of the whole epoch.
        assert stopped.history.get(name, []) + resumed.history[name] == values


def test_resumed_run_stands_where_it_was_in_a_pass_longer_than_an_epoch(arrays):
    config = make_config(epochs=4, steps_per_epoch=3)  # three epochs a pass over the data: 3, 3, 1
    whole, state = make_tiny(), make_tiny()
    with pytest.warns(UserWarning, match="after 1 of 3 steps"):
        fit(whole, make_pipeline(arrays), config)
    fit(state, make_pipeline(arrays), config, hooks=[StopAfter(4)])
    with pytest.warns(UserWarning, match="after 1 of 3 steps"):
        fit(state, make_pipeline(arrays), config, resume=True)
    assert_same_weights(state.model, whole.model)


def test_resume_within_an_epoch_needs_a_data_set_that_can_seek(dataset):
    state = make_tiny()
    fit(state, dataset, make_config(epochs=2), hooks=[StopAfter(4)])
    with pytest.raises(ValueError, match=r"stopped after 4 steps .* no seek"):
        fit(state, dataset, make_config(epochs=2), resume=True)


def test_a_failed_run_leaves_the_last_good_checkpoint(tmp_path):
    def batches():
        for step in range(5):
            if step == 4 and state.progress.num_epochs_completed:
                raise ValueError("the disk is gone")
            yield np.ones((2, 4), "float32"), np.zeros(2, "int64")

    specs = (tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int64))
    state = make_tiny()
    failing = tf.data.Dataset.from_generator(batches, output_signature=specs)
    with pytest.raises(tf.errors.OpError, match="the disk is gone"):
        fit(state, failing, make_config(epochs=2), hooks=[SaveCheckpoint(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt-5.npz"]
    assert as_int(state.optimizer.iterations) > 5
    checkpoint.restore(tmp_path, state)
    assert as_int(state.optimizer.iterations) == 5


def test_resume_after_the_last_epoch_does_nothing(dataset):
    state = make_tiny()
    fit(state, dataset, make_config(epochs=2))
    before = state.weights_sha256()
    history = fit(state, dataset, make_config(epochs=2), resume=True)
    assert (history.history, state.weights_sha256()) == ({}, before)
    history = fit(state, dataset, make_config(epochs=3), resume=True)
    assert history.epoch == [2]


# The size of executions.


def test_automatic_size_grows_to_about_a_tenth_of_a_second(monkeypatch):
    clock = iter(np.arange(100) * 0.01)  # each execution takes 10 ms, whatever its size
    monkeypatch.setattr("gradloop.engine.loop.time.perf_counter", lambda: next(clock))
    planner, sizes = Planner(make_config(steps_per_execution="auto")), []
    for _ in range(5):
        sizes.append(planner.next_size(None, 0))
        planner.measure(sizes[-1])
    assert sizes == [1, 1, 8, 64, 512]  # eightfold at most: 10 ms are below 100 ms


def test_automatic_size_shrinks_when_steps_are_slow(monkeypatch):
    clock = iter([0.0, 0.01, 0.09, 2.0, 3.0])
    monkeypatch.setattr("gradloop.engine.loop.time.perf_counter", lambda: next(clock))
    planner, sizes = Planner(make_config(steps_per_execution="auto")), []
    for _ in range(5):
        sizes.append(planner.next_size(None, 0))
        planner.measure(sizes[-1])
    assert sizes[:4] in ([1, 1, 8, 9], [1, 1, 8, 10])  # 80 ms for 8 steps
    assert planner.next_size(None, 0) == 1


def test_short_last_execution_does_not_shrink_the_next(monkeypatch):
    clock = iter(np.arange(100) * 0.01)
    monkeypatch.setattr("gradloop.engine.loop.time.perf_counter", lambda: next(clock))
    planner = Planner(make_config(steps_per_execution="auto"))
    for _ in range(4):
        planner.measure(planner.next_size(None, 0))
    assert planner.next_size(None, 0) == 512
    planner.measure(planner.next_size(3, 0))  # three steps were left in the epoch
    assert planner.next_size(None, 0) == 29  # 10 ms for 3 steps; 8 * 3 would be fewer


@pytest.mark.parametrize(("num_left", "expected"), [(None, 5), (9, 5), (2, 2)])
def test_given_size_is_kept_but_at_the_end(num_left, expected):
    planner = Planner(make_config(steps_per_execution=5))
    planner.measure(5)
    assert planner.next_size(num_left, 0) == expected


# evaluate and predict.


@pytest.mark.parametrize("steps", [None, 3])
@pytest.mark.parametrize("num_replicas", [1, 2])
def test_evaluate_equals_keras(arrays, num_replicas, steps):
    weighted = tf.data.Dataset.from_tensor_slices(arrays).batch(BATCH_SIZE)
    strategy = two_cpus() if num_replicas == 2 else None
    expected = make_compiled(strategy=strategy).evaluate(
        weighted, steps=steps, return_dict=True, verbose=0
    )
    state = make_state(strategy=strategy)
    config = make_config(validation_steps=steps)
    assert evaluate(state, weighted, config) == expected
    assert evaluate(state, weighted, config) == expected  # the metrics are reset
    assert list(evaluate(state, weighted, config)) == list(expected)


def test_evaluate_calls_hooks(dataset):
    seen = []
    hook = LambdaHook(
        on_eval_begin=lambda info: seen.append("begin"),
        on_eval_end=lambda info: seen.append(dict(info.logs)),
    )
    logs = evaluate(make_tiny(), dataset, make_config(), hooks=[hook])
    assert seen == ["begin", logs]


def test_own_eval_step(dataset):
    def eval_step(state, batch):
        return {"num_seen": tf.shape(batch[0])[0]}

    logs = evaluate(make_tiny(), dataset.take(2), make_config(), eval_step=eval_step)
    assert logs == {"num_seen": 4.0}


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_predict_equals_keras_bit_for_bit(arrays, num_replicas):
    x = arrays[0][:25]  # the last batch has one example: the second replica gets none
    structure = {"a": x, "b": x[:, :2]}
    data = tf.data.Dataset.from_tensor_slices((structure, x[:, 0])).batch(BATCH_SIZE)
    strategy = two_cpus() if num_replicas == 2 else None
    state = make_state(build_two_by_two, two_by_two_arguments, strategy)
    expected = state.model.predict(data, verbose=0)
    outputs = predict(state, data, make_config())
    assert outputs.keys() == expected.keys() == {"label", "value"}
    for name in expected:
        assert outputs[name].shape[0] == 25
        np.testing.assert_array_equal(outputs[name], expected[name])


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_predict_traces_once(arrays, num_replicas):
    calls = []

    class Counted(Subclassed):
        def call(self, x):
            calls.append(x.shape)
            return super().call(x)

    data = tf.data.Dataset.from_tensor_slices(arrays[0]).batch(BATCH_SIZE)
    state = make_state(
        Counted, lambda: {"optimizer": "sgd"}, two_cpus() if num_replicas == 2 else None
    )
    state.build(data.element_spec)
    calls.clear()
    outputs = predict(state, data, make_config())
    assert outputs.shape == (NUM_EXAMPLES, 3)
    assert len(calls) == num_replicas  # once a replica


def test_predict_without_data_is_an_error(dataset):
    with pytest.raises(ValueError, match="no batch"):
        predict(make_tiny(), dataset.take(0), make_config())


def test_a_distributed_data_set_is_refused_with_the_cure():
    strategy = make_strategy(TrainConfig(strategy="mirrored", num_replicas=2))
    distributed = strategy.experimental_distribute_dataset(tf.data.Dataset.range(6).batch(4))
    with strategy.scope():
        state = TrainState(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))
    with pytest.raises(ValueError, match=r"pass a tf\.data\.Dataset; the engine distributes it"):
        fit(state, distributed, TrainConfig())
