"""Measures the engine against Keras's fit and other frameworks, and itself."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = Path("benchmarks/results")  # from the root of a checkout
