"""ReplicaRules: what several replicas do alike with fit, and what they do right where fit is wrong.

docs/parity.md shows each of fit's faults beside what is done here.
"""

from __future__ import annotations

from typing import NamedTuple

from ..config import TrainConfig


class ReplicaRules(NamedTuple):
    """What a step does under several replicas. With one replica, only the last of it matters.

    Attributes:
      weighs_examples: Each example of a batch weighs the same, however it is split.
      clips_globally: The optimizer clips gradients after they are summed over the replicas.
      has_distinct_rng: Layers draw other random numbers on each replica.
      syncs_statistics: What layers keep beside weights is averaged at the end of each epoch.
      counts_skipped: Steps that a loss scale skips count in metrics, as in fit.
    """

    weighs_examples: bool = False
    clips_globally: bool = False
    has_distinct_rng: bool = False
    syncs_statistics: bool = False
    counts_skipped: bool = False


def find_rules(config: TrainConfig, num_replicas: int) -> ReplicaRules:
    """Returns the rules that a config asks for.

    Args:
      config: Read: `uneven`, `clip`, `replica_rng`, `sync_statistics`, `parity`.
      num_replicas: In sync, over all workers.
    """
    is_right = config.parity != "fit"
    if num_replicas == 1:
        return ReplicaRules(counts_skipped=not is_right)
    syncs = config.sync_statistics
    return ReplicaRules(
        weighs_examples=is_right if config.uneven is None else config.uneven == "exact",
        clips_globally=is_right if config.clip is None else config.clip == "global",
        has_distinct_rng=config.replica_rng == "distinct",
        syncs_statistics=is_right if syncs is None else syncs,
        counts_skipped=not is_right,
    )
