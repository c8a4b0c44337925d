"""A compiled model is taken as it is; what TrainState is given replaces exactly that."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 4)).astype("float32")
Y = RNG.normal(size=(24, 1)).astype("float32")
CONFIG = engine.TrainConfig(global_batch_size=8)
OF_FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}


def build():
    return keras.Sequential([keras.Input([4]), keras.layers.Dense(1)])


def test_what_a_person_set_is_kept():
    model = build()
    model.compile("sgd", "mse", metrics=["mae"], steps_per_execution=3, run_eagerly=True)
    optimizer = model.optimizer
    state = engine.TrainState(model)
    assert state.optimizer is model.optimizer is optimizer
    assert (model.steps_per_execution, model.run_eagerly) == (3, True)
    assert sorted(engine.fit(state, X, CONFIG, y=Y).history) == ["loss", "mae"]


def test_what_it_was_compiled_with_takes_effect():
    seen = []

    class Noting(keras.Sequential):
        def train_step(self, data):
            seen.append(tf.executing_eagerly())
            return super().train_step(data)

    model = Noting([keras.Input([4]), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    engine.fit(engine.TrainState(model), X, CONFIG, y=Y)
    assert seen == [True] * 3
    sizes = []
    watch = engine.LambdaHook(on_execution_end=lambda info: sizes.append(info.execution_steps))
    model = build()
    model.compile("sgd", "mse", steps_per_execution=2)
    engine.fit(engine.TrainState(model), X, CONFIG, y=Y, hooks=[watch])
    assert sizes == [2, 1]


@pytest.mark.parametrize("what", ["train", "eval", "predict"])
def test_it_takes_effect_in_a_loop_of_ones_own(what):
    seen = []

    class Noting(keras.Sequential):
        def call(self, x, training=None):
            seen.append(tf.executing_eagerly())
            return super().call(x)

    model = Noting([keras.Input([4]), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    state, strategy = engine.TrainState(model), tf.distribute.get_strategy()
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    state.build(data.element_spec)
    seen.clear()
    if what == "predict":
        engine.make_predict_function(state, strategy, CONFIG)(next(iter(data)))
    else:
        make, step = {
            "train": (engine.make_train_function, engine.train_step),
            "eval": (engine.make_eval_function, engine.eval_step),
        }[what]
        make(step, state, strategy, CONFIG)(iter(data), tf.constant(1))
    assert seen == [True]


def test_a_config_that_contradicts_what_it_was_compiled_with_says_where_that_comes_from():
    model = build()
    model.compile("sgd", "mse", run_eagerly=True)
    config = engine.TrainConfig(global_batch_size=8, jit_compile=True)
    with pytest.raises(engine.ConfigError, match="the model was compiled with run_eagerly=true: "):
        engine.fit(engine.TrainState(model), X, config, y=Y)
    found = [one.what for one in engine.check_setup(CONFIG, model)]
    assert "run_eagerly=true" in found


def test_a_model_that_is_compiled_again_needs_a_new_state():
    model = build()
    model.compile("sgd", "mse")
    state = engine.TrainState(model)
    engine.fit(state, X, CONFIG, y=Y)
    model.compile("adam", "mae")
    for call in (engine.fit, engine.evaluate):
        with pytest.raises(engine.ConfigError, match=r"create a new TrainState\(model\)"):
            call(state, X, CONFIG, y=Y)
    assert engine.predict(state, X, CONFIG).shape == (24, 1)
    assert engine.fit(engine.TrainState(model), X, CONFIG, y=Y).history["loss"][0] > 0


def test_steps_of_one_object_are_used():
    model = build()
    model.train_step = types.MethodType(lambda self, data: {"mine": tf.constant(2.0)}, model)
    model.compile("sgd", "mse")
    assert engine.fit(engine.TrainState(model), X, CONFIG, y=Y).history == {"mine": [2.0]}


def test_a_loss_is_called_by_position_as_in_fit():
    class Named(keras.Sequential):
        def compute_loss(self, inputs, targets, outputs, weights=None, training=True):
            return keras.ops.mean((targets - outputs) ** 2)

    histories = []
    for train in (
        lambda model: model.fit(X, Y, batch_size=8, shuffle=False, verbose=0),
        lambda model: engine.fit(engine.TrainState(model), X, CONFIG, y=Y, shuffle=False),
    ):
        keras.utils.set_random_seed(0)
        model = Named([keras.Input([4]), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        histories.append(train(model).history)
    assert histories[0] == histories[1]


def test_values_of_a_models_own_metrics_are_those_of_the_last_step_as_in_fit():
    class Peaks(keras.Sequential):
        def compute_metrics(self, x, y, y_pred, sample_weight=None):
            logs = super().compute_metrics(x, y, y_pred, sample_weight)
            return {**logs, "peak": keras.ops.max(y_pred)}

    histories = []
    for train in (
        lambda model: model.fit(X, Y, validation_data=(X, Y), **OF_FIT),
        lambda model: engine.fit(
            engine.TrainState(model), X, CONFIG, y=Y, validation_data=(X, Y), shuffle=False
        ),
    ):
        keras.utils.set_random_seed(0)
        model = Peaks([keras.Input([4]), keras.layers.Dense(1)])
        model.compile("sgd", "mse", metrics=["mae"])
        histories.append(train(model).history)
    assert histories[0] == histories[1] and "val_peak" in histories[0]


def test_a_list_of_inputs_is_no_pair_of_inputs_and_targets():
    one, other = keras.Input([4]), keras.Input([1])
    model = keras.Model(
        [one, other], keras.layers.Dense(1)(keras.layers.Concatenate()([one, other]))
    )
    model.compile("sgd", "mse")
    expected = model.evaluate([X, Y], Y, batch_size=8, verbose=0)
    found = engine.evaluate(engine.TrainState(model), [X, Y], CONFIG, y=Y)
    assert found == {"loss": expected}


def test_a_model_that_was_trained_is_saved_with_loss_and_optimizer(tmp_path):
    model = build()
    model.compile("adam", "mse")
    engine.fit(engine.TrainState(model), X, CONFIG, y=Y)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(X, Y, verbose=0) == model.evaluate(X, Y, verbose=0)
    assert int(loaded.optimizer.iterations) == 3


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"metrics": ["mse"]}, ("optimizer", "loss")),
        ({"loss": "mae"}, ("optimizer",)),
        ({"optimizer": "adam"}, ("loss",)),
    ],
)
def test_what_is_given_replaces_that_and_nothing_else(given, kept):
    model = build()
    model.compile("sgd", "mse", metrics=["mae"])
    before = {"optimizer": model.optimizer, "loss": model.loss}
    state = engine.TrainState(model, **given)
    for name in kept:
        assert getattr(model, name) is before[name]
    assert state.optimizer is model.optimizer
    names = set(engine.fit(state, X, CONFIG, y=Y).history)
    assert names == ({"loss", "mse"} if "metrics" in given else {"loss", "mae"})


def test_without_a_loss_scale_there_is_none():
    keras.config.set_dtype_policy("mixed_float16")
    model = build()
    model.compile("sgd", "mse", auto_scale_loss=False)
    state = engine.TrainState(model, metrics=["mae"])
    assert not isinstance(state.optimizer, keras.optimizers.LossScaleOptimizer)


def test_a_model_with_its_own_compile_and_train_step_trains_as_in_fit():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x):
            return self.dense(x)

        def compile(self, factor, **kwargs):
            super().compile(**kwargs)
            self.factor = factor

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.factor * tf.reduce_mean((self(x) - y) ** 2)
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            return {"mine": loss}

    def make():
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(1)
        model = Own()
        model.compile(2.0, optimizer="sgd", loss="mse")
        return model

    theirs, ours = make(), make()
    expected = theirs.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    config = engine.TrainConfig(global_batch_size=8, epochs=2)
    found = engine.fit(engine.TrainState(ours), X, config, y=Y)
    assert found.history == expected.history
    np.testing.assert_array_equal(ours.get_weights()[0], theirs.get_weights()[0])


def test_a_model_that_makes_its_functions_itself_is_refused():
    class Own(keras.Sequential):
        def make_train_function(self, force=False):
            return super().make_train_function(force)

    state = engine.TrainState(Own([keras.Input([4]), keras.layers.Dense(1)]), "sgd", loss="mse")
    one = build()
    one.make_train_function = types.MethodType(lambda self, force=False: None, one)
    for refused in (state, engine.TrainState(one, "sgd", loss="mse")):
        with pytest.raises(ValueError, match="overrides make_train_function"):
            engine.fit(refused, X, CONFIG, y=Y)


def test_a_model_that_is_not_compiled_predicts_and_stays_so():
    model = build()
    outputs = engine.predict(engine.TrainState(model), X, CONFIG)
    np.testing.assert_array_equal(outputs, model.predict(X, batch_size=8, verbose=0))
    assert not model.compiled


def test_a_model_predicts_by_its_own_predict_step():
    class Own(keras.Sequential):
        def predict_step(self, data):
            return super().predict_step(data) * 0.0 + 7.0

    model = Own([keras.Input([4]), keras.layers.Dense(1)])
    assert (engine.predict(engine.TrainState(model), X, CONFIG) == 7.0).all()


@pytest.mark.parametrize("kind", ["ragged", "sparse", "lengths", "scalars", "dense"])
def test_outputs_are_joined_as_keras_joins_them(kind):
    class Own(keras.Model):
        def call(self, x):
            if kind == "ragged":
                return tf.RaggedTensor.from_tensor(x)
            if kind == "sparse":
                return tf.sparse.from_dense(x)
            if kind == "lengths":
                return tf.zeros([tf.shape(x)[0], tf.shape(x)[0]])
            return tf.reduce_sum(x) if kind == "scalars" else x

    model = Own()
    x = X[:21]
    expected = model.predict(x, batch_size=8, verbose=0)
    found = engine.predict(engine.TrainState(model), x, CONFIG)
    assert type(found) is type(expected)
    if kind == "ragged":
        assert found.to_list() == expected.to_list()
    elif kind == "sparse":
        np.testing.assert_array_equal(tf.sparse.to_dense(found), tf.sparse.to_dense(expected))
    elif kind == "lengths":
        assert found.to_list() == expected.to_list()
    else:
        np.testing.assert_array_equal(found, expected)


def test_predict_takes_a_number_of_steps():
    endless = tf.data.Dataset.from_tensor_slices(X).batch(8).repeat()
    assert engine.predict(engine.TrainState(build()), endless, CONFIG, steps=2).shape == (16, 1)
