"""What a step forgets is said in a warning, and what it returns is in the history."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.engine.storage import checkpoint

X = np.arange(80, dtype="float32").reshape(20, 4) / 80
Y = np.ones((20, 1), "float32")
CONFIG = engine.TrainConfig(global_batch_size=8)  # batches of 8, 8 and 4


def make_state(**kwargs):
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(1), keras.layers.Dense(1)])
    return engine.TrainState(model, "sgd", loss="mse", **kwargs)


def fit(state, step, **kwargs):
    data = {"y": Y, "shuffle": False} | kwargs
    return engine.fit(state, X, CONFIG, train_step=step, **data)


def loss_and_gradients(state, batch):
    x, y = batch
    with tf.GradientTape() as tape:
        loss = state.compute_loss(x, y, state.call_model(x, training=True))
    return loss, tape.gradient(loss, state.model.trainable_variables)


def test_a_forgotten_update_is_said():
    def step(state, batch):
        loss, _ = loss_and_gradients(state, batch)
        return {"loss": loss}

    with pytest.warns(
        UserWarning, match=r"step uses trainable variables and changes none: call state\.apply"
    ):
        fit(make_state(), step)


def test_a_variable_that_no_checkpoint_has_is_named():
    count = tf.Variable(0.0, name="my_count")

    def step(state, batch):
        count.assign_add(1.0)
        return engine.train_step(state, batch)

    with pytest.warns(UserWarning, match=r"no checkpoint has them: my_count.*extras"):
        fit(make_state(), step)
    assert count.numpy() == 3


def test_a_variable_among_the_extras_is_not():
    state = make_state(extras={"count": keras.Variable(0.0, name="my_count")})

    def step(state, batch):
        state.extras["count"].assign_add(1.0)
        return engine.train_step(state, batch)

    fit(state, step)


def test_a_forgotten_scale_is_said():
    keras.config.set_dtype_policy("mixed_float16")

    def step(state, batch):
        loss, gradients = loss_and_gradients(state, batch)
        state.apply_gradients(gradients)
        return {"mine": loss}

    with pytest.warns(UserWarning, match=r"not scaled.*state\.scale_loss"):
        fit(make_state(), step)


def test_the_loss_that_a_step_returns_itself_is_in_the_history():
    def step(state, batch):
        loss, gradients = loss_and_gradients(state, batch)
        state.apply_gradients(gradients)
        return {"loss": loss}

    expected = fit(make_default(), engine.train_step).history["loss"]
    found = fit(make_default(), step).history["loss"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[0] > 0


def make_default():
    keras.utils.set_random_seed(1)
    return make_state()


def test_a_loss_of_ones_own_that_is_nan_stops_the_run():
    def step(state, batch):
        loss, gradients = loss_and_gradients(state, batch)
        state.apply_gradients(gradients)
        return {"loss": loss * float("nan")}

    history = fit(make_state(), step, hooks=[engine.StopOnNaN()])
    assert history.stop_kind is engine.StopKind.DIVERGED


def logs_step(state, batch):
    logs = engine.train_step(state, batch)
    sizes = {"mean": tf.shape(batch[0])[0], "last": engine.last(tf.shape(batch[0])[0])}
    return {**logs, "size": sizes}


def test_logs_are_means_by_examples_and_the_last_value_on_request():
    history = fit(make_state(), logs_step).history
    assert sorted(history) == ["last", "loss", "mean"]  # nested dicts are flattened, as in Keras
    np.testing.assert_allclose(history["mean"], [(8 * 8 + 8 * 8 + 4 * 4) / 20])
    assert history["last"] == [4.0]


def test_logs_are_means_over_the_replicas_too():
    def step(state, batch):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return {**engine.train_step(state, batch), "replica": replica}

    strategy = engine.make_strategy(engine.TrainConfig(strategy="mirrored", num_replicas=2))
    with strategy.scope():
        state = make_state()
    # Batches of 8, 8 and 3: 4 and 4, 4 and 4, 2 and 1 examples.
    history = engine.fit(state, X[:19], CONFIG, y=Y[:19], train_step=step, shuffle=False).history
    np.testing.assert_allclose(history["replica"], [9 / 19], rtol=1e-6)


def test_means_of_an_evaluation_are_its_own():
    def eval_step(state, batch):
        return {**engine.eval_step(state, batch), "size": tf.shape(batch[0])[0]}

    logs = engine.evaluate(make_state(), X, CONFIG, y=Y, eval_step=eval_step)
    np.testing.assert_allclose(logs["size"], (8 * 8 + 8 * 8 + 4 * 4) / 20)


def test_means_are_saved_within_an_epoch(tmp_path):
    whole = fit(make_default(), logs_step).history
    keras.utils.clear_session(free_memory=False)
    state = make_default()

    class Stop(engine.Hook):
        every_steps = 2

        def on_execution_end(self, info):
            if info.progress.step == 2:
                info.request_stop("enough", immediately=True)

    from gradloop.data import pipeline

    make_dataset = lambda: pipeline.make_dataset(X, Y, global_batch_size=8)  # noqa: E731
    engine.fit(state, make_dataset(), CONFIG, train_step=logs_step, hooks=[Stop()])
    path = checkpoint.save(tmp_path, state)
    keras.utils.clear_session(free_memory=False)
    again = make_default()
    again.build(make_dataset().element_spec)
    checkpoint.restore(path, again)
    resumed = engine.fit(again, make_dataset(), CONFIG, train_step=logs_step, resume=True).history
    assert resumed == whole


def test_an_evaluation_leaves_the_metrics_of_the_training_alone():
    seen = []

    def evaluate(info):
        seen.append(engine.evaluate(info.state, X, CONFIG, y=Y)["loss"])

    hook = engine.LambdaHook(on_execution_end=evaluate)
    found = fit(make_default(), engine.train_step, hooks=[hook]).history
    assert found == fit(make_default(), engine.train_step).history
    assert len(seen) == 3 and len(set(seen)) == 3


def test_a_layer_that_is_frozen_between_two_fits_stays_as_it_is():
    state = make_state()
    fit(state, engine.train_step)
    frozen = state.model.layers[0]
    frozen.trainable = False
    before = frozen.get_weights()
    history = fit(state, engine.train_step)
    assert "no longer trainable: " in history.traces[0]["cause"]
    assert all((a == b).all() for a, b in zip(before, frozen.get_weights(), strict=True))
    frozen.trainable = True
    assert fit(state, engine.train_step).num_traces == 0  # the first graph is there
    assert not all((a == b).all() for a, b in zip(before, frozen.get_weights(), strict=True))


def test_statistics_alone_can_be_frozen_too():
    statistics = keras.layers.BatchNormalization(center=False, scale=False)
    model = keras.Sequential([keras.Input([4]), statistics, keras.layers.Dense(1)])
    state = engine.TrainState(model, "sgd", loss="mse")
    fit(state, engine.train_step)
    statistics.trainable = False
    before = statistics.get_weights()
    history = fit(state, engine.train_step)
    cause = history.traces[0]["cause"]
    assert "no longer trainable: " in cause and statistics.name in cause
    assert all((a == b).all() for a, b in zip(before, statistics.get_weights(), strict=True))


def test_averages_are_of_the_layers_that_still_train():
    layers = [keras.layers.Dense(4, use_bias=False) for _ in range(3)]
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    state = engine.TrainState(keras.Sequential([keras.Input([4]), *layers]), optimizer, loss="mse")
    fit(state, engine.train_step, y=X)
    layers[0].trainable = False
    before = [layer.get_weights()[0] for layer in layers]
    fit(state, engine.train_step, y=X)
    averages = [average.numpy() for average in optimizer._model_variables_moving_average]
    found = [layer.get_weights()[0] for layer in layers]
    for value, expected in zip(found, [before[0], *averages[1:]], strict=True):
        np.testing.assert_array_equal(value, expected)
    assert not np.allclose(found[1], before[1])


def test_a_layer_that_a_hook_freezes_is_frozen_from_the_next_execution_on():
    state = make_state()
    layer, weights = state.model.layers[0], []

    def freeze(info):
        layer.trainable = False
        weights.append(layer.get_weights()[0])

    config = engine.TrainConfig(global_batch_size=8, steps_per_execution=1)
    hook = engine.LambdaHook(on_execution_end=freeze)
    engine.fit(state, X, config, y=Y, hooks=[hook])
    np.testing.assert_array_equal(weights[0], weights[2])


def test_run_eagerly_gives_the_numbers_and_stops_at_breakpoints():
    kinds = []

    def step(state, batch):
        kinds.append(tf.executing_eagerly() and float(batch[0][0, 0]))
        return engine.train_step(state, batch)

    expected = fit(make_default(), engine.train_step).history["loss"]
    config = engine.TrainConfig(global_batch_size=8, run_eagerly=True)
    found = engine.fit(make_default(), X, config, y=Y, train_step=step, shuffle=False).history
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-6)
    np.testing.assert_allclose(kinds, X[[0, 8, 16], 0])


def test_a_frozen_model_updates_its_statistics_as_in_fit():
    model = keras.Sequential([keras.Input([4]), keras.layers.BatchNormalization()])
    model.layers[0].gamma.trainable = model.layers[0].beta.trainable = False
    state = engine.TrainState(model, "sgd", loss="mse")
    with pytest.warns(UserWarning, match="no trainable variables"):
        engine.fit(state, X, CONFIG, y=X)
    assert (model.layers[0].moving_mean.numpy() != 0).all()


def test_a_metric_with_several_results_is_flattened():
    class Both(keras.metrics.Metric):
        def __init__(self):
            super().__init__(name="both")
            self.low = self.add_variable((), "zeros", name="low")
            self.high = self.add_variable((), "zeros", name="high")

        def update_state(self, y, y_pred, sample_weight=None):
            self.high.assign_add(1.0)

        def result(self):
            return {"low": self.low, "high": self.high}

    state = make_state(metrics=[Both()])
    history = fit(state, engine.train_step).history
    assert (history["low"], history["high"]) == ([0.0], [3.0])


def test_xla_is_left_out_where_a_layer_cannot_be_compiled():
    state = make_state()
    state.model.layers[0].supports_jit = False
    config = engine.TrainConfig(global_batch_size=8, jit_compile=True)
    with pytest.warns(UserWarning, match="supports_jit is False"):
        engine.fit(state, X, config, y=Y)
