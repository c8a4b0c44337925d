"""Keras models and the recipes that go with them."""
