"""Finds the recipe of a model by name.

A new model is one module in this folder, with a `build` and a `RECIPE`, and one line in `_NAMES`.
"""

from __future__ import annotations

import importlib

from gradloop.usage import did_you_mean

from .recipe import Recipe

# Names of modules, which `get` imports.
_NAMES = (
    "cnn",
    "cnn_lstm",
    "dense",
    "lstm",
)


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
    if name not in _NAMES:
        raise ValueError(
            f"unknown model {name!r}; legal: {', '.join(names())}.{did_you_mean(name, _NAMES)}"
        )
    recipe: Recipe = importlib.import_module(f".{name}", __package__).RECIPE
    return recipe


def names() -> list[str]:
    """Returns the names of the models in alphabetical order."""
    return sorted(_NAMES)
