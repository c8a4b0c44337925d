"""Keras models, each with the recipe to train it; `registry` finds them by name."""
