"""Benchmarks of the engine. Each program answers one question.

- throughput: how many images per second do the engine, fit and other frameworks train on?
- ladder: what does each part of a training step cost?
- scaling: does the cost of an image or of a step depend on how many there are?
- learning: do numerics that change bits change the accuracy?
- gallery: how fast are the custom steps of the documents, against a bare loop?
- gpu: what does a GPU make of a workload?
"""

from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = Path("benchmarks/results")  # from the root of a checkout
