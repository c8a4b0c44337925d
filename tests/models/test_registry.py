import dataclasses
import importlib
import re

import keras
import numpy as np
import pytest

from gradloop.models import registry
from gradloop.models.recipe import Recipe


@pytest.mark.parametrize("name", registry.names())
def test_every_model_has_a_recipe(name):
    recipe = registry.get(name)
    assert isinstance(recipe, Recipe)
    assert recipe.epochs >= 1
    assert recipe.global_batch_size >= 1
    assert recipe.build().name == name


@pytest.mark.parametrize("name", registry.names())
def test_what_is_known_before_a_model_is_imported_is_what_its_module_says(name):
    entry = registry.MODELS[name]
    assert entry.defaults == registry.get(name).defaults
    module = importlib.import_module(f"gradloop.models.{name}")
    assert module.__doc__.lower().startswith(entry.summary.lower())


def test_names_are_sorted():
    assert registry.names() == ["cnn", "cnn_lstm", "dense", "lstm"]


def test_unknown_name_gets_the_legal_ones_and_the_nearest():
    message = "unknown model 'cn'; legal: cnn, cnn_lstm, dense, lstm. Did you mean 'cnn'?"
    with pytest.raises(ValueError, match=re.escape(message)):
        registry.get("cn")


@pytest.mark.parametrize("name", ["transformer", "", None, "recipe", "registry", "..data.mnist"])
def test_no_hint_where_nothing_is_near(name):
    with pytest.raises(ValueError, match=r"unknown model .*; legal: cnn, cnn_lstm, dense, lstm\.$"):
        registry.get(name)


@pytest.mark.parametrize(
    ("name", "epochs", "global_batch_size", "loss"),
    [
        ("dense", 5, 128, keras.losses.CategoricalCrossentropy),
        ("cnn", 1, 64, keras.losses.BinaryCrossentropy),
    ],
)
def test_recipes_that_are_prescribed(name, epochs, global_batch_size, loss):
    recipe = registry.get(name)
    assert recipe.defaults == {"epochs": epochs, "global_batch_size": global_batch_size}
    assert type(recipe.make_loss()) is loss
    assert type(recipe.make_optimizer(None)) is keras.optimizers.RMSprop


@pytest.mark.parametrize(
    ("name", "learning_rate"), [("cnn", 1e-3), ("cnn_lstm", 2e-3), ("dense", 1e-3), ("lstm", 2e-3)]
)
def test_learning_rate_replaces_the_recipes_own(name, learning_rate):
    make_optimizer = registry.get(name).make_optimizer
    assert float(make_optimizer(None).learning_rate) == pytest.approx(learning_rate)
    assert float(make_optimizer(0.25).learning_rate) == 0.25


@pytest.mark.parametrize("name", registry.names())
def test_factories_return_new_objects(name):
    recipe = registry.get(name)
    assert recipe.make_optimizer(None) is not recipe.make_optimizer(None)
    assert recipe.make_metrics()[0] is not recipe.make_metrics()[0]


@pytest.mark.parametrize("name", registry.names())
def test_accuracy_is_categorical(name):
    """Three of four right; a binary accuracy would say 0.95 and more."""
    (metric,) = registry.get(name).make_metrics()
    labels = np.eye(10, dtype="float32")[[0, 1, 2, 3]]
    probabilities = np.eye(10, dtype="float32")[[0, 1, 2, 4]]
    metric.update_state(labels, probabilities)
    assert metric.name == "accuracy"
    assert float(metric.result()) == 0.75


def test_recipe_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        registry.get("cnn").epochs = 2
