"""Benchmarks of the engine. Each program answers one question.

- throughput: how many images per second do the engine, fit and other frameworks train on?
- ladder: what does each part of a training step cost?
- inference: how many images per second do predict and evaluate take, here and in Keras?
- scaling: does the cost of an image or of a step depend on how many there are?
- learning: do numerics that change bits change the accuracy?
- gallery: how fast are the custom steps of the documents, against a bare loop?
- memory_limited: how fast is training on a file that does not fit into memory, against fit?
- gpu: what does a GPU make of a workload, and what do replicas, determinism and memory cost there?
- checkpoints: what does a save cost, against `save_weights` and `tf.train.Checkpoint`?
- replica_equivalence: does a model train alike on any number of replicas and workers?
- chaos: does a run that is killed and resumed end with the bits of one that never was?
"""

from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = Path("benchmarks/results")  # from the root of a checkout
