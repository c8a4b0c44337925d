"""Name -> build function and the recipe that goes with it.

A new model is one file in this folder, with a `build` and a `RECIPE`, and one line in `_NAMES`.
"""

from __future__ import annotations

import importlib

from gradloop.usage import did_you_mean

from .recipe import Recipe

# Each is the name of its module, which is imported when it is asked for.
_NAMES = (
    "cnn",
    "cnn_lstm",
    "dense",
    "lstm",
)


def get(name: str) -> Recipe:
    """Returns the recipe of a model.

    Raises:
      ValueError: If there is no model of that name.
    """
    if name not in _NAMES:
        raise ValueError(
            f"unknown model {name!r}; legal: {', '.join(names())}.{did_you_mean(name, _NAMES)}"
        )
    recipe: Recipe = importlib.import_module(f".{name}", __package__).RECIPE
    return recipe


def names() -> list[str]:
    """Returns the legal names in alphabetical order."""
    return sorted(_NAMES)
