"""Cluster: the workers of a run, as the environment of the process tells of them.

`TF_CONFIG` is what TensorFlow reads, and what Kubernetes' operators and most launchers set. SLURM
tells the same in variables of its own, which are written into `TF_CONFIG` here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from ..options import ConfigError

VARIABLE = "TF_CONFIG"
JOBS = ("chief", "worker")  # in the order in which TensorFlow counts the workers
_EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
)
_SLURM_PORT = 2222  # of the first task on a machine; the next has the next


class Cluster(NamedTuple):
    """The workers of a run, in TensorFlow's order.

    Attributes:
      addresses: `host:port` of each.
      worker: Index of this process among them.
    """

    addresses: tuple[str, ...]
    worker: int

    @property
    def num_workers(self) -> int:
        """How many there are."""
        return len(self.addresses)

    @property
    def is_chief(self) -> bool:
        """Whether this process is the first of them, which writes the files of the run."""
        return self.worker == 0

    def describe(self) -> str:
        """Returns who this process is, and who the others are."""
        return f"worker {self.worker} of {self.num_workers} ({', '.join(self.addresses)})"


def find_cluster() -> Cluster:
    """Returns the workers that `TF_CONFIG` names; sets it from the variables of SLURM without one.

    Context: before the first TensorFlow operation; none is run.

    Raises:
      ConfigError: If the environment names no workers, or in another form.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text and "SLURM_PROCID" in os.environ:
        text = os.environ[VARIABLE] = json.dumps(_of_slurm())
    if not text:
        raise ConfigError(
            f"strategy='multi_worker' needs {VARIABLE}, which names all workers and which of them "
            f"this process is: set it in each to the like of {VARIABLE}='{_EXAMPLE}', start the "
            "workers with SLURM's srun, or use strategy='mirrored' for one machine."
        )
    try:
        return _parse(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{VARIABLE}={text!r} does not describe a cluster ({_in_words(error)}): set it to the "
            f"like of '{_EXAMPLE}'; jobs are {' and '.join(JOBS)}."
        ) from error


def cluster_of(strategy: tf.distribute.Strategy) -> Cluster:
    """Returns the workers of a strategy; one, if it is of one process."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return Cluster(("",), 0)
    resolver = strategy.cluster_resolver
    jobs = resolver.cluster_spec().as_dict()
    if not jobs:
        return Cluster(("",), 0)
    return _order(jobs, resolver.task_type, resolver.task_id)


def _parse(config: Mapping[str, Any]) -> Cluster:
    jobs, task = dict(config["cluster"]), config["task"]
    unknown = sorted(set(jobs) - set(JOBS))
    if unknown:
        raise ValueError(f"the job {unknown[0]!r} does not train")
    tf.train.ClusterSpec(jobs)  # which refuses other types
    return _order(jobs, str(task["type"]), int(task["index"]))


def _order(jobs: Mapping[str, Any], task_type: str, task_id: int) -> Cluster:
    addresses = [address for job in JOBS for address in jobs.get(job, ())]
    if len(jobs.get("chief", ())) > 1:
        raise ValueError("there is one chief")
    if not 0 <= task_id < len(jobs.get(task_type, ())):
        raise ValueError(f"the task {task_type} {task_id} is not in the cluster")
    before = len(jobs.get("chief", ())) if task_type == "worker" else 0
    return Cluster(tuple(addresses), before + task_id)


def _of_slurm() -> dict[str, Any]:
    # The GPUs of a task are those that SLURM lets it see. The resolver, which would ask nvidia-smi
    # and divide by 0 without one, is told of one for each task, and sets nothing.
    try:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=_SLURM_PORT, gpus_per_node=1 << 16, gpus_per_task=1, auto_set_gpu=False
        )
        jobs = resolver.cluster_spec().as_dict()
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"SLURM_PROCID is set, but SLURM's variables do not describe a cluster ({error}): "
            f"start the workers with srun, or set {VARIABLE} to the like of '{_EXAMPLE}'."
        ) from error
    return {"cluster": jobs, "task": {"type": resolver.task_type, "index": resolver.task_id}}


def _in_words(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)
