"""Finds the recipe of a model by name.

A new model is one module in this folder, with a `build` and a `RECIPE`, and one entry in `MODELS`,
which the command line reads without importing Keras.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any

from gradloop.usage import did_you_mean

if TYPE_CHECKING:
    from .recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is known of a model before it is imported.

    Attributes:
      summary: One line.
      defaults: As `Recipe.defaults`.
    """

    summary: str
    defaults: dict[str, Any]


# The keys are names of modules, which `get` imports.
MODELS = {
    "cnn": Entry(
        "the convolutional network of the tutorial", {"epochs": 1, "global_batch_size": 64}
    ),
    "cnn_lstm": Entry(
        "an LSTM that reads the rows of a convolutional feature map",
        {"epochs": 2, "global_batch_size": 64},
    ),
    "dense": Entry("two dense layers on flattened pixels", {"epochs": 5, "global_batch_size": 128}),
    "lstm": Entry("an LSTM that reads an image row by row", {"epochs": 5, "global_batch_size": 64}),
}


def get(name: str) -> Recipe:
    """Returns the recipe of a model.

    Args:
      name: One of `names()`.

    Raises:
      ValueError: If there is no model of that name.

    Example:
      >>> from gradloop.models import registry
      >>> registry.get("cnn").global_batch_size
      64
    """
    check_name(name)
    recipe: Recipe = importlib.import_module(f".{name}", __package__).RECIPE
    return recipe


def check_name(name: str) -> None:
    """Raises ValueError if there is no model of that name; imports none.

    Example:
      >>> from gradloop.models import registry
      >>> registry.check_name("dense")
    """
    if name not in MODELS:
        raise ValueError(
            f"unknown model {name!r}; legal: {', '.join(names())}.{did_you_mean(name, MODELS)}"
        )


def names() -> list[str]:
    """Returns the names of the models in alphabetical order."""
    return sorted(MODELS)
