"""make_strategy, its errors, and what it does to a dataset."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
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


def test_strategies_of_several_sizes_train_in_one_process():
    """Each with a collective in the forward pass too; TensorFlow alone mixes them up."""
    x = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
    dataset = tf.data.Dataset.from_tensor_slices((x, x[:, :3])).batch(12)

    def train(strategy):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            normalize = keras.layers.BatchNormalization(synchronized=True)
            model = keras.Sequential([keras.Input((4,)), normalize, keras.layers.Dense(3)])
            state = engine.TrainState(model, keras.optimizers.SGD(0.1, momentum=0.9), loss="mse")
        engine.fit(state, dataset, TrainConfig(steps_per_execution=1))
        return np.concatenate([weight.numpy().ravel() for weight in model.weights])

    expected = train(make_strategy(TrainConfig()))
    others = [tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"])]
    others += [make_strategy(TrainConfig(strategy="mirrored", num_replicas=n)) for n in (2, 3)]
    for strategy in [*others, others[1]]:
        np.testing.assert_allclose(train(strategy), expected, rtol=1e-5, atol=1e-6)


def test_the_description_has_the_devices():
    mirrored = describe_strategy(make_strategy(TrainConfig(strategy="mirrored", num_replicas=2)))
    assert mirrored == "2 x CPU, logical devices"
    assert describe_strategy(make_strategy(TrainConfig())) == "1 x CPU"
