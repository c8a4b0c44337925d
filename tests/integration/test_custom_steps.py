"""The steps in docs/custom_steps.md, run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine

PAGE = Path(__file__).parents[2] / "docs" / "custom_steps.md"
MAX_LINES = 30


def read_blocks():
    """Returns the Python blocks of each section: first the step, then the set-up."""
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    names = [section.split(":")[0] for section in sections]
    blocks = [re.findall(r"^```python\n(.*?)^```", s, re.MULTILINE | re.DOTALL) for s in sections]
    return dict(zip(names, blocks, strict=True))


BLOCKS = read_blocks()


def dense(*sizes, inputs, activation="tanh"):
    """Returns a function that builds a net with a float32 last layer."""

    def build():
        hidden = [keras.layers.Dense(size, activation) for size in sizes[:-1]]
        last = keras.layers.Dense(sizes[-1], dtype="float32")
        return keras.Sequential([keras.Input((inputs,)), *hidden, last])

    return build


BUILDERS = {
    "build_model": dense(8, 3, inputs=4),
    "build_student": dense(4, 3, inputs=4),
    "build_teacher": dense(8, 8, 3, inputs=4),
    "build_generator": dense(8, 4, inputs=4),
    "build_discriminator": dense(8, 1, inputs=4),
}


def make_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 4)).astype("float32")
    y = np.argmax(x[:, :3], axis=1)
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(8)


def make_strategy(num_replicas):
    if num_replicas == 1:
        return tf.distribute.get_strategy()
    config = engine.TrainConfig(strategy="mirrored", num_replicas=num_replicas)
    return engine.make_strategy(config)


def run(name, *, num_replicas=1, precision="float32", epochs=2, **replacements):
    """Executes both blocks of a section; returns what they define, and the arguments."""
    keras.config.set_dtype_policy(precision)
    config = engine.TrainConfig(epochs=epochs, steps_per_execution=3, precision=precision)
    names = {
        "strategy": make_strategy(num_replicas), "config": config, "train_ds": make_data(),
        "num_replicas": num_replicas, **BUILDERS, **replacements,
    }  # fmt: skip
    for block in BLOCKS[name]:
        exec(compile(block, f"{PAGE.name}, {name}", "exec"), names)
    return names


def define(name):
    """Executes the first block of a section alone: the step."""
    names = {}
    exec(compile(BLOCKS[name][0], f"{PAGE.name}, {name}", "exec"), names)
    return names


def all_finite(model):
    return all(np.isfinite(variable.numpy()).all() for variable in model.variables)


def test_each_section_is_a_short_step_and_its_set_up():
    assert list(BLOCKS) == ["SAM", "Distillation", "GAN"]
    for name, (step, set_up) in BLOCKS.items():
        body = step[step.index("\ndef ") :]
        lines = [line for line in body.splitlines() if line.strip()]
        assert len(lines) < MAX_LINES, f"{name}: {len(lines)} lines"
        assert "train_step=train_step" in set_up


@pytest.mark.parametrize(
    ("num_replicas", "precision"),
    [(1, "float32"), (2, "mixed_bfloat16"), (2, "mixed_float16")],
)
@pytest.mark.parametrize("name", list(BLOCKS))
def test_steps_run_with_everything_else(name, num_replicas, precision):
    names = run(name, num_replicas=num_replicas, precision=precision)
    history, state = names["history"], names["state"]
    # Once more where a step returns what no metric holds: its mean needs variables of its own.
    assert history.num_traces == (1 if name == "SAM" else 2)
    assert history.epoch_steps == [4, 4]  # executions of 3 and 1, a partial last batch
    assert all(np.isfinite(values).all() for values in history.history.values())
    assert all_finite(state.model)
    assert int(state.optimizer.iterations.numpy()) in (7, 8)  # float16 may skip its first step


# SAM.

X = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5], [-1.0, 1.0]], "float32")
Y = np.array([[1.0], [0.0], [-2.0], [0.3]], "float32")


def sam_by_hand(w, parts, *, rho, learning_rate):
    """Foret et al. 2021, in NumPy, for a least-squares loss; one part a replica."""

    def gradient(w, x, y):
        return 2 * x.T @ (x @ w - y) / len(x)

    climbed = [w + rho * g / np.linalg.norm(g) for g in (gradient(w, x, y) for x, y in parts)]
    mean = np.mean([gradient(v, x, y) for v, (x, y) in zip(climbed, parts, strict=True)], axis=0)
    return w - learning_rate * mean


def one_sam_step(x=X, num_replicas=1, optimizer=None):
    step = define("SAM")
    strategy = make_strategy(num_replicas)
    with strategy.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        state = engine.TrainState(model, optimizer or keras.optimizers.SGD(0.1), loss="mse")
    before = model.layers[0].kernel.numpy()
    data = tf.data.Dataset.from_tensor_slices((x, Y)).batch(4)
    config = engine.TrainConfig()
    history = engine.fit(state, data, config, train_step=step["train_step"])
    return state, before, history, step["RHO"]


@pytest.mark.parametrize("num_replicas", [1, 2])
@pytest.mark.parametrize("has_loss_scale", [False, True])
def test_sam_equals_the_formula(num_replicas, has_loss_scale):
    optimizer = keras.optimizers.SGD(0.1)
    if has_loss_scale:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1024.0)
    state, before, history, rho = one_sam_step(num_replicas=num_replicas, optimizer=optimizer)
    parts = list(zip(np.split(X, num_replicas), np.split(Y, num_replicas), strict=True))
    w = before.astype("float64")
    expected = sam_by_hand(w, parts, rho=rho, learning_rate=0.1)
    without_ascent = sam_by_hand(w, parts, rho=0.0, learning_rate=0.1)
    result = state.model.layers[0].kernel.numpy()
    np.testing.assert_allclose(result, expected, rtol=2e-5)
    assert np.abs(result - without_ascent).max() > 1e-3  # the ascent is in the result
    # The logged loss is that of the weights before the ascent.
    np.testing.assert_allclose(history.history["loss"], [np.mean((X @ w - Y) ** 2)], rtol=1e-5)


def test_sam_leaves_the_weights_of_a_skipped_step_as_they_were():
    keras.config.set_dtype_policy("mixed_float16")
    x = X.copy()
    x[3] = 1e30  # inf in float16, on the second replica alone
    state, before, _, _ = one_sam_step(x, num_replicas=2)
    kernel = state.model.layers[0].kernel
    for value in state.strategy.experimental_local_results(kernel.value):
        np.testing.assert_array_equal(value.numpy(), before)
    assert float(state.optimizer.dynamic_scale.numpy()) == 2.0**14


# Distillation.


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_student_comes_nearer_to_a_teacher_that_stays(num_replicas):
    teachers = []

    def build_teacher():
        teacher = BUILDERS["build_teacher"]()
        teachers.append((teacher, [variable.numpy() for variable in teacher.variables]))
        return teacher

    names = run("Distillation", num_replicas=num_replicas, epochs=10, build_teacher=build_teacher)
    ((teacher, initial),) = teachers
    for variable, value in zip(teacher.variables, initial, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    losses = names["history"].history["distillation_loss"]
    assert losses[-1] < 0.5 * losses[0]
    assert any(name.startswith("teacher/") for name, _ in names["state"].named_variables())


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_distillation_loss_equals_the_formula(num_replicas):
    names = define("Distillation")
    with make_strategy(num_replicas).scope():
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        extras = {"teacher": BUILDERS["build_teacher"]()}
        state = engine.TrainState(BUILDERS["build_student"](), "sgd", loss=loss, extras=extras)
    temperature = names["TEMPERATURE"]
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(4, 4)).astype("float32"), np.array([0, 1, 2, 0])

    def log_softmax(logits):
        logits = logits.numpy().astype("float64") / temperature
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    t, s = log_softmax(state.extras["teacher"](x)), log_softmax(state.model(x))
    expected = temperature**2 * np.mean(np.sum(np.exp(t) * (t - s), axis=-1))
    hard = state.model.loss(y, state.model(x)).numpy()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    history = engine.fit(state, data, engine.TrainConfig(), train_step=names["train_step"]).history
    np.testing.assert_allclose(history["distillation_loss"], [expected], rtol=1e-3)
    alpha = names["ALPHA"]
    np.testing.assert_allclose(history["loss"], [(1 - alpha) * hard + alpha * expected], rtol=1e-3)


# GAN.


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_gan_trains_both_models_and_logs_both_losses(num_replicas):
    models = {}

    def keep(name):
        def build():
            model = BUILDERS[name]()
            models[name] = (model, [variable.numpy() for variable in model.trainable_variables])
            return model

        return build

    replacements = {name: keep(name) for name in ("build_generator", "build_discriminator")}
    names = run("GAN", num_replicas=num_replicas, **replacements)
    for model, initial in models.values():
        for variable, value in zip(model.trainable_variables, initial, strict=True):
            assert not np.array_equal(variable.numpy(), value), variable.path
    assert list(names["history"].history) == ["discriminator_loss", "generator_loss"]
    # Near the start neither side knows anything: log 2 an answer, two answers for one of them.
    assert 0.3 < names["history"].history["generator_loss"][0] < 1.6
    assert 0.6 < names["history"].history["discriminator_loss"][0] < 2.6
    owners = {name.split("/")[0] for name, _ in names["state"].named_variables()}
    assert owners == {"model", "optimizer", "metrics", "discriminator", "discriminator_optimizer"}


def test_discriminator_wins_against_a_generator_that_stands_still():
    names = define("GAN")
    generator, discriminator = BUILDERS["build_generator"](), BUILDERS["build_discriminator"]()
    optimizer = keras.optimizers.Adam(0.05)
    optimizer.build(discriminator.trainable_variables)
    extras = {"discriminator": discriminator, "discriminator_optimizer": optimizer}
    state = engine.TrainState(generator, keras.optimizers.SGD(1e-9), extras=extras)
    data = make_data().map(lambda x, y: x + 5.0)
    config = engine.TrainConfig(epochs=8)
    history = engine.fit(state, data, config, train_step=names["train_step"]).history
    assert history["discriminator_loss"][-1] < 0.5 * history["discriminator_loss"][0]
