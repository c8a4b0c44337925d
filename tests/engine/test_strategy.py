"""make_strategy, its errors, and what it does to a dataset."""

from __future__ import annotations

import pytest
import tensorflow as tf

from gradloop.engine import devices
from gradloop.engine.config import TrainConfig
from gradloop.engine.options import ConfigError
from gradloop.engine.strategy import describe_strategy, make_strategy

pytestmark = pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="is about a machine with no GPU"
)


@pytest.mark.parametrize(
    ("fields", "strategy_class", "num_replicas"),
    [
        ({"strategy": "one_device"}, tf.distribute.OneDeviceStrategy, 1),
        ({"strategy": "mirrored"}, tf.distribute.MirroredStrategy, 2),
        ({"strategy": "mirrored", "num_replicas": 1}, tf.distribute.MirroredStrategy, 1),
        ({"strategy": "mirrored", "num_replicas": 4}, tf.distribute.MirroredStrategy, 4),
    ],
)
def test_names(fields, strategy_class, num_replicas):
    strategy = make_strategy(TrainConfig(**fields))
    assert isinstance(strategy, strategy_class)
    assert strategy.num_replicas_in_sync == num_replicas


def test_default_is_tensorflows_own():
    assert make_strategy(TrainConfig()) is tf.distribute.get_strategy()


def test_more_replicas_than_devices_is_an_error():
    with pytest.raises(ConfigError, match=r"num_replicas=5 .* 4 logical CPU devices") as raised:
        make_strategy(TrainConfig(strategy="mirrored", num_replicas=5))
    assert "\n" not in str(raised.value)


def test_more_replicas_than_gpus_is_an_error(monkeypatch):
    monkeypatch.setattr(
        devices, "logical",
        lambda kind: [tf.config.LogicalDevice("/device:GPU:0", "GPU")] if kind == "GPU" else [],
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"num_replicas=2 .* 1 GPU devices: ask for 1 or fewer"):
        make_strategy(TrainConfig(strategy="mirrored", num_replicas=2))


def test_batch_that_leaves_a_replica_empty_is_an_error():
    config = TrainConfig(strategy="mirrored", global_batch_size=1)  # two logical CPUs by default
    with pytest.raises(ConfigError, match="global_batch_size=1 is less than"):
        make_strategy(config)


def test_the_description_has_the_devices():
    mirrored = describe_strategy(make_strategy(TrainConfig(strategy="mirrored", num_replicas=2)))
    assert mirrored == "2 x CPU, logical devices"
    assert describe_strategy(make_strategy(TrainConfig())) == "1 x CPU"
