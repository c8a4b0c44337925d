"""The steps of docs/custom_steps/supervised.md against their formulas, but for SAM."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.data import pipeline
from tests.gallery import sections
from tests.gallery.sections import REPLICAS, one_step


def make_batch(n=8, num_features=8):
    rng = np.random.default_rng(1)
    return rng.normal(size=(n, num_features)).astype("float32"), rng.integers(3, size=n)


def log_softmax(logits):
    logits = np.asarray(logits, "float64")
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def cross_entropies(logits, y):
    return -log_softmax(logits)[np.arange(len(y)), y]


def weights_of(model):
    return [variable.numpy() for variable in model.trainable_variables]


# Distillation.


@pytest.mark.parametrize("num_replicas", REPLICAS)
def test_distillation_loss_equals_the_formula(num_replicas):
    x, y = make_batch()
    before = {}

    def note(state):
        before["t"], before["s"] = state.extras["teacher"](x).numpy(), state.model(x).numpy()

    _, names = sections.set_up("Distillation")
    temperature, alpha = names["TEMPERATURE"], names["ALPHA"]
    _, logs = one_step("Distillation", x, y, change=note, num_replicas=num_replicas)
    t, s = (log_softmax(before[key] / temperature) for key in "ts")
    soft = temperature**2 * np.mean(np.sum(np.exp(t) * (t - s), axis=-1))
    hard = np.mean(cross_entropies(before["s"], y))
    np.testing.assert_allclose(logs["distillation_loss"], soft, rtol=1e-3)
    np.testing.assert_allclose(logs["loss"], (1 - alpha) * hard + alpha * soft, rtol=1e-3)


def test_student_comes_nearer_to_a_teacher_that_stays():
    state, history, _ = sections.run("Distillation", epochs=10)
    untrained, _ = sections.set_up("Distillation")
    teacher, initial = (weights_of(one.extras["teacher"]) for one in (state, untrained))
    for value, expected in zip(teacher, initial, strict=True):
        np.testing.assert_array_equal(value, expected)
    losses = history.history["distillation_loss"]
    assert losses[-1] < 0.5 * losses[0]


# Mixup.


@pytest.mark.parametrize("still", ["backbone", "head"])
def test_mixup_updates_each_part_with_its_own_optimizer(still):
    before = []

    def stop(state):
        slow = state.extras["backbone_optimizer"]
        (slow if still == "backbone" else state.optimizer).learning_rate = 0.0
        before.extend(weights_of(layer)[0] for layer in state.model.layers)

    state, _ = one_step("Mixup", *make_batch(), change=stop)
    after = [weights_of(layer)[0] for layer in state.model.layers]
    moved = [not np.array_equal(*pair) for pair in zip(before, after, strict=True)]
    assert moved == [still == "head", still == "backbone"]


@pytest.mark.parametrize("num_replicas", REPLICAS)
def test_mixup_halves_are_between_their_labels(num_replicas):
    """Of two examples, four times each, a pair is the same one twice, or half of both."""

    def make_linear(state):
        backbone, head = state.model.layers
        backbone.set_weights([np.eye(8, 32), np.zeros(32)])
        head.set_weights([3.0 * np.eye(32, 3), np.zeros(3)])

    x, y = np.tile(np.eye(2, 8, dtype="float32"), (4, 1)), np.tile([0, 1], 4)
    keywords = {"change": make_linear, "num_replicas": num_replicas}
    _, logs = one_step("Mixup", x, y, ALPHA=1e6, **keywords)  # w is one half
    same = cross_entropies([[3.0, 0.0, 0.0]], [0])[0]
    half = cross_entropies([[1.5, 1.5, 0.0]], [0])[0]
    num_halves = 8 * (logs["loss"] - same) / (half - same)
    np.testing.assert_allclose(num_halves, round(num_halves), atol=0.02)
    assert 0 < round(num_halves) <= 8


# DP-SGD.


def dp_update(num_replicas=1, **constants):
    """Returns the change of all weights in one step of learning rate 1, and the weights before."""
    x, y = make_batch()
    before = []

    def start(state):
        state.optimizer.learning_rate = 1.0
        before.append(weights_of(state.model))

    constants = {"LOT_SIZE": 8, **constants}
    state, logs = one_step("DP-SGD", x, y, change=start, num_replicas=num_replicas, **constants)
    pairs = zip(weights_of(state.model), before[0], strict=True)
    return [after - value for after, value in pairs], state, before[0], logs


def clipped_by_hand(weights, x, y, clip_norm):
    """Returns the sum of the clipped gradients, one example after the other."""
    model = sections.set_up("DP-SGD")[0].model
    model.set_weights(weights)
    total = [np.zeros_like(w) for w in weights]
    for one, label in zip(x, y, strict=True):
        with tf.GradientTape() as tape:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            value = loss(label[None], model(one[None]))
        gradients = [g.numpy() for g in tape.gradient(value, model.trainable_variables)]
        norm = np.sqrt(sum(np.sum(g.astype("float64") ** 2) for g in gradients))
        total = [t + g / max(1.0, norm / clip_norm) for t, g in zip(total, gradients, strict=True)]
    return total


@pytest.mark.parametrize("num_replicas", REPLICAS)
@pytest.mark.parametrize("clip_norm", [0.5, 100.0])
def test_dp_sgd_sums_the_clipped_gradients_of_single_examples(num_replicas, clip_norm):
    changes, _, before, logs = dp_update(num_replicas, SIGMA=0.0, CLIP_NORM=clip_norm)
    total = clipped_by_hand(before, *make_batch(), clip_norm)
    for change, expected in zip(changes, total, strict=True):
        np.testing.assert_allclose(change, -expected / 8, rtol=1e-4, atol=1e-6)
    assert np.isfinite(logs["loss"])


@pytest.mark.parametrize("num_replicas", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_dp_sgd_adds_noise_once_to_the_global_batch(num_replicas):
    (kernel, *_), *_ = dp_update(num_replicas, SIGMA=1000.0)  # beside which gradients are nothing
    noise = kernel.ravel() * 8 / 1000.0
    assert len(noise) == 256
    assert 0.85 < noise.std() < 1.15  # with a noise a replica it would be 1.41


# MAML.


def maml_by_hand(w, b, tasks, *, alpha, num_steps, num_support):
    """Loss and gradient of a linear model, exactly: the inner steps are linear in the weights."""
    total_loss, total_gradient = 0.0, np.zeros(2)
    for x, y in tasks:
        features = np.stack([x[:, 0], np.ones(len(x))], axis=1).astype("float64")
        support, query = features[:num_support], features[num_support:]
        y_support, y_query = y[:num_support, 0], y[num_support:, 0]
        hessian = 2 * support.T @ support / num_support
        theta, jacobian = np.array([w, b], "float64"), np.eye(2)
        for _ in range(num_steps):
            gradient = 2 * support.T @ (support @ theta - y_support) / num_support
            theta = theta - alpha * gradient
            jacobian = (np.eye(2) - alpha * hessian) @ jacobian
        errors = query @ theta - y_query
        total_loss += np.mean(errors**2)
        total_gradient += jacobian.T @ (2 * query.T @ errors / len(query))
    return total_loss / len(tasks), total_gradient / len(tasks)


@pytest.mark.parametrize("num_replicas", REPLICAS)
def test_maml_goes_through_the_inner_gradients(num_replicas):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 4, 10, 1)).astype("float32")
    w, b = 0.5, -0.2

    state, names = sections.set_up("MAML", num_replicas=num_replicas)
    step = names["train_step"]
    with state.strategy.scope():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        linear = engine.TrainState(model, keras.optimizers.SGD(1.0))
    model.set_weights([np.array([[w]]), np.array([b])])
    dataset = pipeline.make_dataset(x, y, global_batch_size=4)
    history = engine.fit(linear, dataset, engine.TrainConfig(), train_step=step)
    loss, gradient = maml_by_hand(
        w, b, list(zip(x, y, strict=True)),
        alpha=names["ALPHA"], num_steps=names["INNER_STEPS"], num_support=names["NUM_SUPPORT"],
    )  # fmt: skip
    np.testing.assert_allclose(history.history["loss"], [loss], rtol=1e-5)
    after = np.array([value.numpy().item() for value in model.trainable_variables])
    np.testing.assert_allclose(after, np.array([w, b]) - gradient, rtol=1e-4)
