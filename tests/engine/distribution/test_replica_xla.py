"""jit_compile under several replicas: XLA compiles all of a step but the update."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from tests.engine.nets import make_config, make_state, mirrored


def build():
    keras.utils.set_random_seed(1)
    hidden = keras.layers.Dense(8, kernel_regularizer=keras.regularizers.L2(0.01))
    layers = [keras.layers.BatchNormalization(), keras.layers.LayerNormalization()]
    head = keras.layers.Dense(3, activity_regularizer="l2")
    return keras.Sequential([keras.Input((4,)), hidden, *layers, head])


def build_plain():
    keras.utils.set_random_seed(1)
    hidden = keras.layers.Dense(8, activation="tanh")
    return keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(3)])


def arguments():
    return {
        "optimizer": keras.optimizers.SGD(0.05, momentum=0.9),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    }


def scaled():
    inner = keras.optimizers.Adam(0.01, global_clipnorm=0.1)
    return {**arguments(), "optimizer": keras.optimizers.LossScaleOptimizer(inner)}


def train(dataset, build=build, make=arguments, *, step=engine.train_step, hooks=(), **fields):
    state = make_state(build, make, mirrored())
    config = make_config(**fields)
    history = engine.fit(
        state, dataset, config, validation_data=dataset, hooks=hooks, train_step=step
    )
    return state, history.history, engine.predict(state, dataset, config)


def assert_close(found, expected):
    state, history, outputs = found
    other, other_history, other_outputs = expected
    assert set(history) == set(other_history)
    for name, values in other_history.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5, err_msg=name)
    for weight, same in zip(state.model.variables, other.model.variables, strict=True):
        np.testing.assert_allclose(weight.numpy(), same.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(outputs, other_outputs, rtol=1e-4, atol=1e-6)


def test_equals_what_is_not_compiled(dataset):
    data = dataset.take(6)  # no replica has a single example
    compiled = train(data, jit_compile=True)
    other = train(data, jit_compile=False)
    assert_close(compiled, other)
    state, history, _ = compiled
    again, same_history, _ = train(data, jit_compile=True)
    assert same_history == history
    for weight, same in zip(state.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, same)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Batches of 5 do not divide:UserWarning")
def test_uneven_batches_scales_and_clipping(arrays):
    def step(state, batch):
        x, y = batch
        logs = engine.train_step(state, (x, y))  # nothing random: XLA draws other numbers
        more = {"first": engine.last(x[0, 0]), "n": engine.total(1.0)}
        return {**logs, **more, "largest": tf.reduce_max(x)}

    data = tf.data.Dataset.from_tensor_slices(arrays[:2]).batch(5)  # 3 and 2, at last 1 and 0
    fields = {"step": step, "gradient_accumulation_steps": 2, "on_nonfinite": "skip"}
    fields |= {"hooks": [engine.OnNonfinite("skip")]}
    compiled = train(data, build_plain, scaled, jit_compile=True, **fields)
    assert_close(compiled, train(data, build_plain, scaled, jit_compile=False, **fields))


def test_xla_compiles_each_replica(dataset):
    def programs(**fields):
        state = make_state(build_plain, arguments, mirrored())
        state.build(dataset.element_spec)
        config = make_config(**fields)
        function = engine.make_train_function(engine.train_step, state, state.strategy, config)
        graph = function._step.trace(dataset.element_spec)[1].graph
        return [op for op in graph.get_operations() if "_XlaMustCompile" in op.node_def.attr]

    assert len(programs(jit_compile=True)) == 2
    assert not programs()


def reading_step(state, batch):
    logs = engine.train_step(state, batch)
    return {**logs, "norm": tf.norm(state.model.layers[0].kernel)}


def counting_step(state, batch):
    logs = engine.train_step(state, batch)
    return {**logs, "updates": engine.last(state.optimizer.iterations)}


def averaging_step(state, batch):
    context = tf.distribute.get_replica_context()
    context.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_mean(batch[0]))
    return engine.train_step(state, batch)


def iterating_step(state, iterator):
    return engine.train_step(state, next(iterator))


class OwnStep(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = keras.layers.Dense(3)

    def call(self, x):
        return self.head(x)

    def train_step(self, batch):
        with tf.GradientTape() as tape:
            loss = self.compute_loss(*batch, self(batch[0]))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


@pytest.mark.parametrize(
    ("build", "step", "message"),
    [
        (build_plain, reading_step, "uses .*dense/kernel after state.apply_gradients"),
        (build_plain, counting_step, "uses .*iteration.* after state.apply_gradients"),
        (build_plain, averaging_step, "replicas exchange values in the step"),
        (build_plain, iterating_step, "iterating_step takes an iterator"),
        (OwnStep, engine.train_step, "replicas exchange values in the step"),
    ],
    ids=["weights read", "iterations read", "exchange", "iterator", "a model's own step"],
)
def test_what_xla_cannot_do_is_said(build, step, message, dataset):
    state = make_state(build, arguments, mirrored())
    with pytest.raises(ValueError, match=message):
        engine.fit(state, dataset, make_config(jit_compile=True), train_step=step)
