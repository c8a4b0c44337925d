"""TrainState: what it compiles, builds, names and refuses."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop.engine.config import TrainConfig
from gradloop.engine.hooks import LambdaHook
from gradloop.engine.loop import fit
from gradloop.engine.state import TrainState
from gradloop.engine.strategy import make_strategy

BATCH_SPEC = (tf.TensorSpec((None, 4), tf.float32), tf.TensorSpec((None, 2), tf.float32))


def build_model():
    layers = [keras.Input((4,)), keras.layers.Dense(2), keras.layers.Dropout(0.5)]
    return keras.Sequential(layers)


def test_extra_optimizer_must_be_built():
    with pytest.raises(ValueError, match=r"extras\['critic_optimizer'\].*not built.*\.build\("):
        TrainState(build_model(), "sgd", extras={"critic_optimizer": keras.optimizers.Adam()})


@pytest.mark.parametrize("name", ["model", "optimizer"])
def test_extras_cannot_take_the_names_of_what_the_state_owns(name):
    with pytest.raises(ValueError, match=f"extras\\['{name}'\\]"):
        TrainState(build_model(), "sgd", extras={name: keras.Variable(1.0)})


@pytest.mark.parametrize("where", ["model", "state"])
def test_model_of_another_scope_is_an_error(where):
    scope = make_strategy(TrainConfig(strategy="mirrored", num_replicas=2)).scope
    if where == "model":
        with scope():
            model = build_model()
        with pytest.raises(ValueError, match=r"strategy\.scope\(\)"):
            TrainState(model, "sgd", loss="mse")
    else:
        model = build_model()
        with scope(), pytest.raises(ValueError, match=r"strategy\.scope\(\)"):
            TrainState(model, "sgd", loss="mse")


def test_optimizer_of_a_compiled_model_is_kept():
    model = build_model()
    model.compile(optimizer="nadam", loss="mse")
    assert isinstance(TrainState(model, loss="mse").optimizer, keras.optimizers.Nadam)
    assert isinstance(TrainState(build_model(), loss="mse").optimizer, keras.optimizers.RMSprop)


def test_mixed_float16_wraps_the_optimizer():
    keras.config.set_dtype_policy("mixed_float16")
    state = TrainState(build_model(), keras.optimizers.SGD(clipnorm=1.0), loss="mse")
    assert isinstance(state.optimizer, keras.optimizers.LossScaleOptimizer)
    assert state.optimizer.inner_optimizer.clipnorm == 1.0
    state.build(BATCH_SPEC)
    assert float(state.scale_loss(tf.constant(2.0))) == 2.0 * 2**15


def test_scale_is_one_in_other_precisions():
    state = TrainState(build_model(), "sgd", loss="mse")
    assert float(state.scale_loss(tf.constant(2.0))) == 2.0


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_build_makes_every_variable_inside_the_scope(num_replicas):
    strategy = make_strategy(TrainConfig(strategy="mirrored", num_replicas=num_replicas))
    with strategy.scope():
        model = keras.Sequential([keras.layers.Dense(2)])  # not built: no Input
        state = TrainState(model, "adam", loss="mse", metrics=["mae"])
    state.build(BATCH_SPEC)
    names = [name for name, _ in state.named_variables()]
    assert model.built and state.optimizer.built
    assert {"model/sequential/dense/kernel", "optimizer/adam/iteration"} <= set(names)
    for _, variable in state.named_variables():
        assert len(strategy.experimental_local_results(variable.value)) == num_replicas
    assert state.metrics_result().keys() == {"loss", "mae"}


def test_build_twice_changes_nothing():
    state = TrainState(build_model(), "adam", loss="mse")
    state.build(BATCH_SPEC)
    names, digest = [n for n, _ in state.named_variables()], state.weights_sha256()
    state.build(BATCH_SPEC)
    assert ([n for n, _ in state.named_variables()], state.weights_sha256()) == (names, digest)


def test_named_variables_are_all_once_with_unique_names():
    model, other = build_model(), build_model()
    optimizer = keras.optimizers.Adam()
    optimizer.build(other.trainable_variables)
    count = keras.Variable(0.0, name="count")
    extras = {"other": other, "other_optimizer": optimizer, "count": count, "again": count}
    state = TrainState(model, "sgd", loss="mse", extras=extras)
    state.build(BATCH_SPEC)
    named = state.named_variables()
    names, variables = [n for n, _ in named], [v for _, v in named]
    assert len(set(names)) == len(names)
    assert len({id(v) for v in variables}) == len(variables)
    owned = [*model.variables, *state.optimizer.variables, *other.variables, *optimizer.variables]
    owned += model.metrics_variables
    assert {id(v) for v in variables} == {id(v) for v in [*owned, count]}
    assert sum("seed_generator" in name for name in names) == 2  # dropout of both models
    assert "count/count" in names and "again/count" not in names


class Alike(keras.Model):
    """Four layers of one name, which Keras allows in a subclass."""

    def __init__(self):
        super().__init__(name="net")
        self.blocks = [keras.layers.Dense(4, use_bias=False, name="same") for _ in range(4)]

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def test_layers_of_one_name_get_different_names():
    state = TrainState(Alike(), "sgd", loss="mse")
    state.build((tf.TensorSpec((None, 4)), tf.TensorSpec((None, 4))))
    names = [n for n, _ in state.named_variables()]
    path = "model/net/same/kernel"
    assert names[:4] == [path, f"{path}#2", f"{path}#3", f"{path}#4"]
    assert len({v.path for v in state.model.variables}) == 1  # as Keras names them


def test_digest_sees_each_weight():
    state = TrainState(build_model(), "sgd", loss="mse")
    before = state.weights_sha256()
    kernel = state.model.layers[0].kernel
    value = kernel.numpy()
    kernel.assign(np.nextafter(value, np.inf, dtype="float32"))
    assert state.weights_sha256() != before
    kernel.assign(value)
    assert state.weights_sha256() == before


def test_loss_is_the_global_mean_after_the_sum_over_replicas():
    strategy = make_strategy(TrainConfig(strategy="mirrored", num_replicas=2))
    y = tf.constant([[1.0, 1.0], [3.0, 3.0]])
    with strategy.scope():
        state = TrainState(build_model(), "sgd", loss="mse")
    state.build(BATCH_SPEC)

    @tf.function
    def losses():
        def replica():
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            x, target = tf.ones((1, 4)), y[index : index + 1]
            loss = state.compute_loss(x, target, tf.zeros((1, 2)))
            state.update_metrics(loss, x, target, tf.zeros((1, 2)))
            return loss

        return strategy.reduce("SUM", strategy.run(replica), axis=None)

    assert float(losses()) == 5.0  # the mean of 1, 1, 9, 9
    assert float(state.metrics_result()["loss"]) == 5.0
    state.reset_metrics()
    assert float(state.metrics_result()["loss"]) == 0.0


@pytest.mark.parametrize("extra", [tf.Variable(0.0), [1, 2], object()])
def test_an_extra_that_cannot_be_saved_is_refused(extra):
    with pytest.raises(ValueError, match=r"extras\['thing.* is .*cannot be saved: pass a model"):
        TrainState(build_model(), "sgd", loss="mse", extras={"thing": extra})


def test_metrics_and_seed_generators_among_the_extras_are_saved_reset_and_reported():
    mean, seeds = keras.metrics.Mean(name="extra_mean"), keras.random.SeedGenerator(3)
    state = TrainState(build_model(), "sgd", loss="mse", extras={"mean": mean, "seeds": seeds})
    state.build(BATCH_SPEC)
    names = [name for name, _ in state.named_variables()]
    assert any(name.startswith("mean/") for name in names)
    assert any(name.startswith("seeds/") for name in names)
    mean.update_state(4.0)
    assert float(state.metrics_result()["extra_mean"]) == 4.0
    state.reset_metrics()
    assert float(state.metrics_result()["extra_mean"]) == 0.0


def test_a_sparse_gradient_forbids_loops_under_replicas_whatever_is_updated_after_it():
    strategy = make_strategy(TrainConfig(strategy="mirrored", num_replicas=2))
    with strategy.scope():
        table = keras.Sequential([keras.Input((), dtype="int64"), keras.layers.Embedding(9, 4)])
        dense = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        optimizer = keras.optimizers.SGD(0.1)
        optimizer.build(dense.trainable_variables)
        extras = {"dense": dense, "dense_optimizer": optimizer}
        state = TrainState(table, keras.optimizers.SGD(0.1), extras=extras)

    def step(state, batch):
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_mean(dense(table(batch)))
        state.apply_gradients(tape.gradient(loss, table.trainable_variables))
        gradients = tape.gradient(loss, dense.trainable_variables)
        state.apply_gradients(gradients, dense.trainable_variables, optimizer=optimizer)
        return {"my_loss": loss}

    assert not state.may_loop
    sizes = []
    hook = LambdaHook(on_execution_end=lambda info: sizes.append(info.execution_steps))
    data = tf.data.Dataset.range(9).batch(4)  # a partial last batch: other rows
    fit(state, data, TrainConfig(steps_per_execution=3), train_step=step, hooks=[hook])
    assert not state.may_loop
    assert sizes == [3]  # in three calls: a loop would have ended the process
