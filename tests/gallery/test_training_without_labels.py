"""The steps of docs/custom_steps/self_supervised.md and reinforcement.md against their formulas."""

import itertools

import numpy as np
import pytest

from tests.gallery import sections
from tests.gallery.sections import REPLICAS, one_step

X = np.random.default_rng(0).normal(size=(8, 8)).astype("float32")
Y = np.zeros(8, "int64")


def unit(z):
    return z / np.linalg.norm(z, axis=1, keepdims=True)


# SimCLR.


def nt_xent(z, temperature):
    """Chen et al. 2020, equation 1, for `z` of the first views and then of the second."""
    z = unit(z.astype("float64"))
    n = len(z) // 2
    losses = []
    for i in range(2 * n):
        similarities = np.exp(z @ z[i] / temperature)
        others = similarities.sum() - similarities[i]
        losses.append(-np.log(similarities[(i + n) % (2 * n)] / others))
    return np.mean(losses)


@pytest.mark.parametrize("num_replicas", REPLICAS)
def test_simclr_contrasts_the_views_of_a_replica(num_replicas):
    before = []
    _, logs = one_step(
        "SimCLR", X, Y, num_replicas=num_replicas, NOISE=0.0,
        change=lambda state: before.append(state.model(X).numpy()),
    )  # fmt: skip
    parts = np.split(before[0], num_replicas)
    expected = np.mean([nt_xent(np.concatenate([z, z]), 0.5) for z in parts])
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)
    assert logs["partners_found"] == 1.0  # equal views are nearest


# BYOL.


def outputs_of(model, x):
    return model(x).numpy().astype("float64")


@pytest.mark.parametrize("num_replicas", REPLICAS)
def test_byol_predicts_its_target_which_follows(num_replicas):
    before = {}

    def note(state):
        guesses, aims = outputs_of(state.model, X), outputs_of(state.extras["target"], X)
        before["loss"] = np.mean(2 * (2 - 2 * np.sum(unit(guesses) * unit(aims), axis=1)))
        before["target"] = [v.numpy() for v in state.extras["target"].variables]

    state, logs = one_step("BYOL", X, Y, num_replicas=num_replicas, change=note, NOISE=0.0)
    np.testing.assert_allclose(logs["loss"], before["loss"], rtol=1e-4)
    online = state.model.layers[0].variables
    pairs = zip(before["target"], online, state.extras["target"].variables, strict=True)
    for old, fast, slow in pairs:
        np.testing.assert_allclose(slow.numpy(), 0.99 * old + 0.01 * fast.numpy(), rtol=1e-5)
        assert not np.array_equal(slow.numpy(), old)


# REINFORCE.


@pytest.mark.parametrize("num_replicas", REPLICAS)
def test_the_policy_learns_to_bring_the_cart_back(num_replicas):
    _, history, _ = sections.run("REINFORCE", epochs=3, num_replicas=num_replicas)
    returns = history.history["return"]
    assert returns[-1] > 0.5 * returns[0]  # both are negative


def test_the_gradient_of_a_policy_is_that_of_its_returns():
    """Of one push for each of eight carts; which ones it took, the mean return tells."""
    starts = np.stack([np.linspace(-2, 2, 8), np.full(8, 0.1)], axis=1).astype("float32")
    probs = []

    def start(state):
        logits = outputs_of(state.model, starts)
        probs.append(np.exp(logits[:, 1]) / np.exp(logits).sum(axis=1))

    state, logs = one_step("REINFORCE", starts, change=start, HORIZON=1)
    actions = np.array(list(itertools.product([0, 1], repeat=8)))
    places = starts[:, 0] + 0.5 * (starts[:, 1] + 0.4 * (2 * actions - 1))
    returns = -(places.astype("float64") ** 2)
    taken = np.argmin(np.abs(returns.mean(axis=1) - logs["return"]))
    np.testing.assert_allclose(returns[taken].mean(), logs["return"], rtol=1e-6)
    advantages = returns[taken] - returns[taken].mean()
    expected = -np.mean((actions[taken] - probs[0]) * advantages)
    # The first moment of Adam is a tenth of the gradient: here that of the second logit's bias.
    moment = state.optimizer._momentums[-1].numpy()
    np.testing.assert_allclose(10 * moment, [-expected, expected], rtol=1e-4)
