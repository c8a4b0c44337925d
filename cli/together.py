"""What the workers of `--strategy multi_worker` do together: meet, decide, end.

With one worker, each function here does what it says without asking anybody.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from gradloop import deadline, engine, signals
from gradloop.engine.workers.cluster import Cluster, find_cluster
from gradloop.engine.workers.peers import MESSAGE_BYTES, Peers
from gradloop.usage import EXIT_PEERS_LOST

from .config import JobConfig
from .settings.reliability import DEFAULT_HANG_SECS

# What may differ between machines.
_LOCAL = {"run_dir", "data_dir", "intra_op_threads", "inter_op_threads"}
_DIGITS = 4  # hexadecimal ones, of the digest of a setting
_MAX_ERROR = MESSAGE_BYTES // 8  # characters, of which one may take six bytes
_LOSSES = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
_WORDS_OF_LOSSES = re.compile(
    r"collective|coordination service|connection reset|heartbeat|failed to connect", re.IGNORECASE
)
_RESTART = "Start all workers again, with --resume auto: they go on from the newest checkpoint"


def meet(config: JobConfig) -> tuple[tf.distribute.Strategy, Peers]:
    """Makes the strategy, which waits for all workers.

    The process ends with `EXIT_PEERS_LOST` if they are not there after `start_secs`.

    Raises:
      ConfigError: If there can be no such strategy here, or the workers have other settings.
    """
    if config.strategy != "multi_worker":
        strategy = engine.make_strategy(config)
        return strategy, Peers(strategy)
    cluster = find_cluster()
    line = (
        f"the workers have not come together in {config.start_limit:g} s (start_secs): one was not "
        f"started, or cannot be reached, or has ended. This is {cluster.describe()}; it ends with "
        f"exit code {EXIT_PEERS_LOST}. {_RESTART}."
    )
    # There is nothing to save yet, and TensorFlow lets no thread of Python's run in the meantime.
    with signals.released(), deadline.within_c(config.start_limit, line, EXIT_PEERS_LOST):
        strategy = engine.make_strategy(config)
        peers = Peers(strategy)
        check_equal(peers, config)
    return strategy, peers


def check_equal(peers: Peers, config: JobConfig) -> None:
    """Raises ConfigError if the workers have other settings, but for what is of a machine."""
    names = [f.name for f in dataclasses.fields(config) if f.name not in _LOCAL]
    texts = [f"{name}={getattr(config, name)!r}" for name in names]
    own = "".join(hashlib.sha256(text.encode()).hexdigest()[:_DIGITS] for text in texts)
    for worker, found in enumerate(peers.share(own)):
        pairs = zip(names, _digests(own), _digests(found), strict=False)
        different = [name for name, here, there in pairs if here != there]
        if len(found) != len(own):
            different = ["version of the code"]
        if different:
            peers.barrier()
            raise engine.ConfigError(
                f"worker {peers.worker} has another {', '.join(different)} than worker {worker}: "
                "give all workers the same command line, and the same version of the code."
            )


def _digests(text: str) -> list[str]:
    return [text[i : i + _DIGITS] for i in range(0, len(text), _DIGITS)]


def signal_of_any(peers: Peers) -> int:
    """Returns the number of a signal that one of the workers has received; 0: none has."""
    return int(max(peers.share(signals.number() or 0)))


def part(peers: Peers, config: JobConfig) -> None:
    """Waits for all workers, before the end of this process, which takes the others down.

    After `hang_secs` it ends with `EXIT_PEERS_LOST`.
    """
    if peers.is_alone:
        return
    limit = config.hang_limit or DEFAULT_HANG_SECS
    line = (
        f"the other workers have not ended within {limit:g} s (hang_secs) after worker "
        f"{peers.worker} of {peers.num_workers}, which ends with exit code {EXIT_PEERS_LOST}."
    )
    # One that came last may be gone before this one knows: the work of both is done.
    with contextlib.suppress(tf.errors.OpError), deadline.within(limit, line, EXIT_PEERS_LOST):
        peers.barrier()


def ask_chief(peers: Peers, call: Callable[[], Any]) -> Any:
    """Returns what a call on the chief returns, on all workers; only the chief calls.

    Args:
      peers: The workers.
      call: Returns what JSON can hold. Its ConfigError is raised on all workers.
    """
    if peers.is_alone:
        return call()
    value, error = None, None
    if peers.is_chief:
        try:
            value = call()
        except engine.ConfigError as refusal:
            error = str(refusal)
    value, reason = peers.of_chief([value, error and error[:_MAX_ERROR]])
    if reason is not None:
        peers.barrier()
        raise engine.ConfigError(error or f"the chief says: {reason}")
    return value


def check_start(peers: Peers, num_steps: int) -> None:
    """Raises ConfigError if the workers go on from different steps; `num_steps` is this one's."""
    steps = peers.share(num_steps)
    if len(set(steps)) > 1:
        peers.barrier()
        raise engine.ConfigError(
            f"the workers stand at the steps {', '.join(map(str, steps))}: the folder of the run, "
            "or of the checkpoint, must be one that all machines share."
        )


@contextlib.contextmanager
def ending_alone(config: JobConfig) -> Iterator[None]:
    """Ends the process with `EXIT_PEERS_LOST` if an error in the block says that peers are gone."""
    try:
        yield
    except Exception as error:
        if config.strategy != "multi_worker" or not is_loss(error):
            raise
        print(f"gradloop: {describe_loss(error, find_cluster())}", file=sys.stderr)
        leave(EXIT_PEERS_LOST)


def is_loss(error: BaseException | None) -> bool:
    """Returns whether an error, or one that has led to it, says that a peer is gone."""
    while error is not None:
        is_of_words = isinstance(error, tf.errors.OpError | RuntimeError) and (
            _WORDS_OF_LOSSES.search(str(error)) is not None
        )
        if isinstance(error, _LOSSES) or is_of_words:
            return True
        error = error.__cause__ or error.__context__
    return False


def describe_loss(error: BaseException, cluster: Cluster) -> str:
    """Returns a line that says which peers are gone, as far as TensorFlow tells, and what to do."""
    found = {int(task) for task in re.findall(r"/?task:(\d+)", str(error))}
    gone = sorted(task for task in found - {cluster.worker} if task < cluster.num_workers)
    who = ", ".join(f"worker {task} ({cluster.addresses[task]})" for task in gone)
    what = f"{who or 'another worker'} is gone" if len(gone) < 2 else f"{who} are gone"
    first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    return (
        f"{what}; this is {cluster.describe()}, and ends with exit code {EXIT_PEERS_LOST}. "
        f"{_RESTART}. TensorFlow says: {first}"
    )


def leave(code: int) -> None:
    """Ends the process without destructors: one of TensorFlow's may wait for a peer for ever."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
