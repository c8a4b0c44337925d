"""Slices: what each of several workers takes of the batches of a dataset.

`experimental_distribute_dataset` shards by files where it finds some, and gives a worker of several
replicas parts that do not follow one another. Here a batch is split as one process splits it under
`MirroredStrategy`, and each worker takes the parts of its own replicas: the numbers are the same.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import tensorflow as tf
from tensorflow.python.data.experimental.ops.distribute import _LegacyRebatchDataset

from ..arguments import describe
from ..protocols import Sliceable
from .cluster import cluster_of


def distribute(dataset: tf.data.Dataset, strategy: tf.distribute.Strategy) -> Any:
    """Returns the dataset of the strategy, of the same global batches on any number of workers."""
    if cluster_of(strategy).num_workers == 1:
        return strategy.experimental_distribute_dataset(dataset)
    slices = dataset.slices if isinstance(dataset, Sliceable) else None
    return strategy.distribute_datasets_from_function(slices or functools.partial(_slices, dataset))


def of_context(data: Any, strategy: tf.distribute.Strategy) -> Any:
    """Returns the dataset that a function of `tf.distribute.InputContext` makes; else the data.

    Args:
      data: What a person passed as x, or for validation.
      strategy: Calls the function, once on each worker.

    Raises:
      ValueError: If the function returns no dataset.
    """
    if not _takes_context(data):
        return data

    def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
        dataset = data(context)
        if not isinstance(dataset, tf.data.Dataset):
            raise ValueError(
                f"The function of tf.distribute.InputContext returned {describe(dataset)}: it must "
                "return a tf.data.Dataset of the batches of one replica. Pass anything else itself."
            )
        return dataset

    return strategy.distribute_datasets_from_function(make)


def _takes_context(data: Any) -> bool:
    """Returns whether data are a function of one argument, which yields nothing itself."""
    is_function = inspect.isfunction(data) or isinstance(data, functools.partial)
    if not is_function or inspect.isgeneratorfunction(data):
        return False
    try:
        inspect.signature(data).bind(None)
    except TypeError:
        return False
    return True


def _slices(dataset: tf.data.Dataset, context: tf.distribute.InputContext) -> tf.data.Dataset:
    """Returns the parts of each batch that belong to the replicas of a worker, in their order."""
    num_replicas = context.num_replicas_in_sync
    num_local = num_replicas // context.num_input_pipelines
    first = context.input_pipeline_id * num_local

    def is_own(index: tf.Tensor, _: Any) -> tf.Tensor:
        return tf.equal(index % num_replicas // num_local, first // num_local)

    parts = _LegacyRebatchDataset(dataset, num_replicas).enumerate().filter(is_own)
    return parts.map(lambda _, part: part).prefetch(num_local)
