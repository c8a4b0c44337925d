"""What test_agreement asks of a field of TrainConfig: a check that it takes effect, or raises."""

import pytest
import tensorflow as tf

from gradloop.engine.loop import fit
from gradloop.engine.options import ConfigError
from tests.engine.nets import make_config, make_tiny

CHECKS = {}


def shows(*names):
    """Makes a function the check of these fields; it takes the name and the pipeline's arrays."""

    def add(check):
        CHECKS.update(dict.fromkeys(names, check))
        return check

    return add


def plain(arrays):
    return tf.data.Dataset.from_tensor_slices(arrays[:2]).batch(4)


def train(arrays, dataset=None, *, state=None, **fields):
    state = state or make_tiny()
    dataset = plain(arrays) if dataset is None else dataset
    return fit(state, dataset, make_config(**fields), validation_data=plain(arrays))


def refuses(message, function, *args, **kwargs):
    with pytest.raises(ConfigError, match=message) as raised:
        function(*args, **kwargs)
    assert "\n" not in str(raised.value)
