"""The steps of docs/custom_steps/generative.md against their formulas."""

import numpy as np
import pytest

from tests.gallery import sections
from tests.gallery.sections import REPLICAS, STEPS_PER_EPOCH, one_step

X = np.random.default_rng(0).normal(size=(8, 8)).astype("float32")
Y = np.zeros(8, "int64")


def constant(model, value):
    """Makes a model of two layers return a constant."""
    *hidden, kernel, bias = model.get_weights()
    model.set_weights([*hidden, np.zeros_like(kernel), np.full_like(bias, value)])


# WGAN-GP.


@pytest.mark.parametrize("num_replicas", REPLICAS)
def test_the_penalty_is_of_the_gradient_between_real_and_generated(num_replicas):
    """A critic with positive units is linear here, so that its gradient is the same everywhere."""
    slope = np.zeros(8)

    def make_linear(state):
        critic = state.extras["critic"]["model"]
        kernel, bias, last, last_bias = critic.get_weights()
        critic.set_weights([0.1 * np.abs(kernel), np.full_like(bias, 50.0), last, last_bias])
        slope[:] = (critic.get_weights()[0] @ last)[:, 0]
        constant(state.model, 0.25)

    _, logs = one_step("WGAN-GP", X, Y, change=make_linear, num_replicas=num_replicas)
    distance = np.mean(X @ slope) - 0.25 * slope.sum()
    np.testing.assert_allclose(logs["distance"], distance, rtol=1e-3, atol=1e-5)
    penalty = 10 * (np.linalg.norm(slope) - 1) ** 2
    np.testing.assert_allclose(logs["critic_loss"], penalty - distance, rtol=1e-3)


@pytest.mark.parametrize("num_replicas", REPLICAS)
def test_the_generator_is_updated_at_each_fifth_step(num_replicas):
    state, _, _ = sections.run("WGAN-GP", num_replicas=num_replicas)
    num_steps = 2 * STEPS_PER_EPOCH
    assert int(state.extras["critic"]["optimizer"].iterations.numpy()) == num_steps
    assert int(state.optimizer.iterations.numpy()) == num_steps / 5
    owners = {"/".join(name.split("/")[:2]) for name, _ in state.named_variables()}
    assert {"critic/model", "critic/optimizer"} <= {owner for owner in owners if "critic" in owner}


# VAE.


@pytest.mark.parametrize("num_replicas", REPLICAS)
def test_vae_loss_is_the_bound(num_replicas):
    mean, log_variance, output = 0.7, -0.4, 0.3

    def make_constant(state):
        state.build(sections.make_dataset("VAE").element_spec)
        constant(state.model.encoder, [mean, mean, log_variance, log_variance])
        constant(state.model.decoder, output)

    _, logs = one_step("VAE", X, Y, change=make_constant, num_replicas=num_replicas)
    error = np.mean(np.sum((X - output) ** 2, axis=1)) / 2
    divergence = 2 * (mean**2 + np.exp(log_variance) - 1 - log_variance) / 2
    np.testing.assert_allclose(logs["error"], error, rtol=1e-5)
    np.testing.assert_allclose(logs["kl_divergence"], divergence, rtol=1e-5)
    np.testing.assert_allclose(logs["loss"], error + divergence, rtol=1e-5)


# Language model.


@pytest.mark.parametrize("num_replicas", REPLICAS)
def test_text_of_the_hook_is_like_the_text_it_learned(num_replicas):
    _, history, names = sections.run("Language model", epochs=5, num_replicas=num_replicas)
    losses = history.history["loss"]
    assert losses[-1] < 0.5 < np.log(8) < losses[0]
    first, *_, last = names["writer"].texts
    assert len(names["writer"].texts) == 5
    follows = lambda codes: np.mean(np.diff(codes) % 8 == 1)  # noqa: E731
    assert follows(last) > 0.8 > follows(first)
