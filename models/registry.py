"""Name -> build function and the recipe that goes with it.

A new model is one file in this folder, with a `build` and a `RECIPE`, and one line in `_NAMES`.
"""

from __future__ import annotations

import difflib
import importlib

from models.recipe import Recipe

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
        near = difflib.get_close_matches(str(name), _NAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown model {name!r}; legal: {', '.join(names())}{hint}")
    recipe: Recipe = importlib.import_module(f"models.{name}").RECIPE
    return recipe


def names() -> list[str]:
    """Returns the legal names in alphabetical order."""
    return sorted(_NAMES)
