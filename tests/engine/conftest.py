"""Data that several tests of the engine share."""

import numpy as np
import pytest
import tensorflow as tf

from tests.engine.nets import BATCH_SIZE, NUM_EXAMPLES


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM_EXAMPLES, 4)).astype("float32")
    y = rng.integers(0, 3, NUM_EXAMPLES)
    weight = rng.uniform(0.1, 2.0, NUM_EXAMPLES).astype("float32")
    return x, y, weight


@pytest.fixture
def dataset(arrays):
    return tf.data.Dataset.from_tensor_slices(arrays[:2]).batch(BATCH_SIZE)
