"""all_reduce and all_reduce_pack_mib: what replicas exchange by, and in how many pieces."""

import numpy as np
import pytest
import tensorflow as tf

from gradloop.engine import devices
from gradloop.engine.config import TrainConfig
from gradloop.engine.options import ConfigError
from gradloop.engine.replicas.reduction import Reduction, find_reduction
from gradloop.engine.strategy import make_strategy

ROWS = 300_000  # of float32: more than a mebibyte


def make(num_replicas=2, **fields):
    fields |= {"strategy": "mirrored", "num_replicas": num_replicas}
    return make_strategy(TrainConfig(**fields))


def num_collectives(strategy):
    """Returns how many collectives exchange three tensors of a mebibyte."""

    @tf.function
    def exchange():
        def one_replica():
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, [tf.ones(ROWS)] * 3)

        return strategy.experimental_local_results(strategy.run(one_replica))

    sums = exchange()
    np.testing.assert_array_equal(sums[0][0], np.full(ROWS, 2.0))
    operations = exchange.get_concrete_function().graph.get_operations()
    return sum(op.type.startswith("CollectiveReduce") for op in operations)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 0),  # two logical CPUs share their memory
        ({"all_reduce": "ring"}, 2),  # one a replica
        ({"all_reduce_pack_mib": 1}, 6),
        ({"all_reduce_pack_mib": 2}, 4),
        ({"all_reduce_pack_mib": 100}, 2),
        ({"all_reduce": "hierarchical"}, 0),
        ({"all_reduce": "one_device"}, 0),
    ],
)
def test_what_exchanges_and_in_how_many_packs(fields, expected):
    assert num_collectives(make(**fields)) == expected


@pytest.mark.parametrize("strategy", ["mirrored", "multi_worker"])
def test_nccl_without_a_gpu_is_refused(strategy, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["localhost:1"]}, "task": '
                       '{"type": "worker", "index": 0}}')  # fmt: skip
    monkeypatch.setattr(devices, "physical", lambda kind=None: [])
    with pytest.raises(ConfigError, match="there is no GPU, which NCCL is for") as raised:
        make_strategy(TrainConfig(strategy=strategy, all_reduce="nccl"))
    assert "\n" not in str(raised.value)


def test_options_of_workers(monkeypatch):
    monkeypatch.setattr(devices, "physical", lambda kind=None: ["a GPU"])
    config = TrainConfig(strategy="multi_worker", all_reduce="nccl", all_reduce_pack_mib=3)
    options = find_reduction(config).options
    assert options.bytes_per_pack == 3 * 2**20
    assert options.implementation.name == "NCCL"
    assert Reduction().options.implementation.name == "AUTO"


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"all_reduce": "hierarchical", "all_reduce_pack_mib": 1}, "which has no packs"),
        ({"all_reduce": "one_device", "strategy": "multi_worker"}, "exchange by collectives"),
        ({"all_reduce": "ring", "strategy": "one_device"}, "there is one replica"),
        ({"all_reduce": "rong"}, "Did you mean 'ring'?"),
    ],
)
def test_what_does_not_go_together(fields, part):
    with pytest.raises(ConfigError) as raised:
        TrainConfig(**fields)
    assert part in str(raised.value) and "\n" not in str(raised.value)
