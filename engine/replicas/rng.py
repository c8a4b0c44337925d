"""Random numbers of layers that differ between replicas.

In fit, the state of each `SeedGenerator` is alike on all replicas, and so every replica draws the
same dropout mask for its part of the batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from ..patching import patched


@contextlib.contextmanager
def distinct_seeds() -> Iterator[None]:
    """Makes seeds that layers take in replica context meanwhile differ from replica to replica.

    Context: cross-replica, around the call of all replicas. What a generator returns is folded with
    the id of the replica; its state stays alike on all, and is saved as ever. The seeds depend on
    nothing else: a run that is resumed takes those of one that never stopped.

    Example:
      >>> from gradloop.engine.replicas.rng import distinct_seeds
      >>> generator = keras.random.SeedGenerator(1)
      >>> with distinct_seeds():
      ...     seed = tf.distribute.get_strategy().run(generator.next)
      >>> seed.shape
      TensorShape([2])
    """
    kind = keras.random.SeedGenerator
    own_next = kind.next

    def next_of_replica(generator: Any, ordered: bool = True) -> tf.Tensor:
        seed = own_next(generator, ordered)
        context: Any = tf.distribute.get_replica_context()
        if context is None:  # of all replicas
            return seed
        replica = tf.cast(context.replica_id_in_sync_group, seed.dtype)
        return tf.random.experimental.stateless_fold_in(seed, replica)

    with patched(kind, next=next_of_replica):
        yield
