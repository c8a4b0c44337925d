"""Datasets of the pipeline, and what is in them."""

import numpy as np

from gradloop.data import pipeline

N = 70  # At batch 16: four whole batches and one of 6.


def make(x=None, y=None, **options):
    x = np.arange(N) if x is None else x
    return pipeline.make_dataset(x, y, **{"global_batch_size": 16, **options})


def batches(dataset, num=None):
    return list(dataset.take(len(dataset) if num is None else num).as_numpy_iterator())


def order(dataset):
    return np.concatenate(batches(dataset)).tolist()


def images(n=N, shape=(28, 28)):
    return np.random.default_rng(0).integers(0, 256, (n, *shape), np.uint8)
