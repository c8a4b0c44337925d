"""What is saved of each variable: its values on the replicas of all workers.

Replicas have weights and optimizer slots alike, but not what each keeps for itself: statistics of
layers, states of random generators, sums of metrics. A worker sees only those of its own replicas.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from ..variables import NamedValues, NamedVariables
from .peers import Peers

_HASH_BYTES = 8
Read = Callable[[keras.Variable], list[np.ndarray]]


def values_of_all(
    peers: Peers, named: NamedVariables, read: Read, alike: tuple[str, ...]
) -> NamedValues:
    """Returns names and values: one array where all replicas have the same, else one a replica.

    Context: cross-replica, on the host, on all workers: it is a collective. The values are read
    when they are asked for, so that they take no memory together.

    Args:
      peers: The workers.
      named: The same on all workers.
      read: Returns the values on the replicas of this one, as `variables.local_values` does.
      alike: What names begin with whose variables are alike on all replicas.
    """
    own = [] if peers.is_alone else [(n, v) for n, v in named if _may_differ(n, v, alike)]
    gathered = _gather(peers, _find_differing(peers, own, read), read)

    def values() -> Iterator[tuple[str, list[np.ndarray]]]:
        for name, variable in named:
            yield name, gathered.get(name) or read(variable)

    return values()


def _may_differ(name: str, variable: keras.Variable, alike: tuple[str, ...]) -> bool:
    """Returns whether replicas may differ in a variable, by its kind: alike on all workers."""
    kept_apart = tf.VariableSynchronization.ON_READ
    if getattr(variable.value, "synchronization", None) == kept_apart:
        return True
    return not variable.trainable and not name.startswith(alike)


def _find_differing(peers: Peers, named: NamedVariables, read: Read) -> NamedVariables:
    """Returns the variables that do not have the same values on all replicas."""
    hashes = [_hashed(read(variable)) for _, variable in named]
    rows = peers.gather(b"".join(hashes))
    differing = []
    for index, one in enumerate(named):
        place = slice(index * _HASH_BYTES, (index + 1) * _HASH_BYTES)
        found = {row[place] for row in rows}
        if len(found) > 1 or bytes(_HASH_BYTES) in found:
            differing.append(one)
    return differing


def _hashed(values: list[np.ndarray]) -> bytes:
    """Returns a hash of the one value; zeros where the replicas of this worker differ already."""
    if len(values) > 1:
        return bytes(_HASH_BYTES)
    return hashlib.blake2b(values[0].tobytes(), digest_size=_HASH_BYTES).digest()


def _gather(peers: Peers, named: NamedVariables, read: Read) -> dict[str, list[np.ndarray]]:
    """Returns the values of each variable on all replicas, in their order."""
    own = []
    for _, variable in named:
        values = read(variable)
        own.append(values * peers.num_local if len(values) == 1 else values)
    data = b"".join(array.tobytes() for values in own for array in values)
    gathered: dict[str, list[np.ndarray]] = {name: [] for name, _ in named}
    for row in peers.gather(data):
        start = 0
        for (name, _), values in zip(named, own, strict=True):
            for array in values:
                end = start + array.nbytes
                flat = np.frombuffer(row[start:end], array.dtype)
                gathered[name].append(flat.reshape(array.shape))
                start = end
    return gathered
