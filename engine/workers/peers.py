"""Peers: the workers of a run, and how they tell one another what only one of them knows.

Clocks, signals and files differ by worker, while all workers must call the same collectives in the
same order: what decides which come next goes through here first. All exchanges are sums over the
replicas, in a compiled function. With one worker, nothing is exchanged and nothing is compiled.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from .cluster import cluster_of

MESSAGE_BYTES = 4096
_MAX_ERROR = 500  # characters of an error that all are told
_WORD = np.dtype("int64")  # lies in the memory of a GPU, too, as int32 does not


class Peers:
    """This process among the workers.

    All workers must make the same calls in the same order, from the main thread: each waits for
    all others.

    Args:
      strategy: Whose workers they are.

    Attributes:
      num_workers: How many there are.
      worker: Index of this one.
      num_local: How many replicas this worker has; all have as many.
      first_replica: Index of the first of them, among those of all workers.
      is_chief: Whether this one writes the files of the run.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        cluster = cluster_of(strategy)
        self.num_workers, self.worker = cluster.num_workers, cluster.worker
        self.is_chief = cluster.is_chief
        self._strategy = strategy
        self.num_local = strategy.num_replicas_in_sync // self.num_workers
        self.first_replica = self.worker * self.num_local

    @property
    def is_alone(self) -> bool:
        """Whether there is one worker, so that there is nobody to ask."""
        return self.num_workers == 1

    def gather(self, data: bytes) -> list[bytes]:
        """Returns the bytes of each worker, in their order. Context: cross-replica, on the host.

        Args:
          data: As many on all workers.
        """
        if self.is_alone or not data:
            return [data] * self.num_workers
        padding = -len(data) % _WORD.itemsize
        words = np.frombuffer(data + bytes(padding), _WORD)
        table = self._sum_up(tf.constant(words)).numpy()
        return [row.tobytes()[: len(data)] for row in table]

    def share(self, message: Any) -> list[Any]:
        """Returns the message of each worker, in their order.

        Args:
          message: What JSON can hold, of at most `MESSAGE_BYTES`.
        """
        if self.is_alone:
            return [message]
        data = json.dumps(message).encode()
        assert len(data) <= MESSAGE_BYTES, message
        return [json.loads(one) for one in self.gather(data.ljust(MESSAGE_BYTES))]

    def of_chief(self, message: Any) -> Any:
        """Returns the chief's message on all workers."""
        return self.share(message if self.is_chief else None)[0]

    def on_chief(self, action: Callable[[], object]) -> None:
        """Has the chief do something, such as writing a file, while all others wait for it.

        Raises:
          Exception: What `action` raises, on the chief.
          OSError: On the others, if that was one.
          RuntimeError: On the others, if it was another one.
        """
        raised: Exception | None = None
        if self.is_chief:
            try:
                action()
            except Exception as error:
                raised = error
        is_of_system = isinstance(raised, OSError)
        words = None if raised is None else f"{type(raised).__name__}: {raised}"[:_MAX_ERROR]
        is_of_system, words = self.of_chief((is_of_system, words))
        if raised is not None:
            raise raised
        if words is not None:
            kind = OSError if is_of_system else RuntimeError
            raise kind(f"The chief, the worker that writes, has failed: {words}")

    def barrier(self) -> None:
        """Waits for all workers.

        A worker whose process ends takes the others down: call it before the end of a script, where
        workers may be done at different times.
        """
        self.share(None)

    @functools.cached_property
    def _sum_up(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """Compiled `[n]` words to `[num_workers, n]`: a row a worker, which the others leave 0."""
        strategy, num_local = self._strategy, self.num_local

        def one_replica(words: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            replica = tf.cast(context.replica_id_in_sync_group, tf.int32)
            own = tf.one_hot(replica // num_local, self.num_workers, dtype=words.dtype)
            own *= tf.cast(replica % num_local == 0, words.dtype)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, own[:, None] * words)

        def run(words: tf.Tensor) -> tf.Tensor:
            return strategy.experimental_local_results(strategy.run(one_replica, args=(words,)))[0]

        function: Callable[[tf.Tensor], tf.Tensor] = tf.function(run, autograph=False)
        return function
