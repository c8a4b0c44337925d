"""configure_runtime, where needed in a process of its own: it changes what belongs to that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from gradloop.engine.config import TrainConfig
from gradloop.engine.options import ConfigError
from gradloop.engine.runtime import configure_runtime

ROOT = Path(__file__).parents[2]

SETTINGS = """
import json
import keras
import tensorflow as tf
from gradloop.engine.config import TrainConfig
from gradloop.engine.runtime import configure_runtime
from gradloop.engine.strategy import make_strategy
from tensorflow.python.framework.config import is_op_determinism_enabled

config = TrainConfig(
    strategy="mirrored", num_replicas=3, precision="mixed_bfloat16", deterministic=True, seed=7,
    intra_op_threads=1, inter_op_threads=2,
)
configure_runtime(config)
configure_runtime(config)  # a second call with the same config is no error
strategy = make_strategy(config)
weight = keras.layers.Dense(3)
weight.build((None, 2))
configure_runtime(config)  # nor is one after TensorFlow has started
print(json.dumps({
    "cpus": len(tf.config.list_logical_devices("CPU")),
    "replicas": strategy.num_replicas_in_sync,
    "intra": tf.config.threading.get_intra_op_parallelism_threads(),
    "inter": tf.config.threading.get_inter_op_parallelism_threads(),
    "deterministic": is_op_determinism_enabled(),
    "policy": keras.config.dtype_policy().name,
    "weight": weight.kernel.numpy().tolist(),
}))
"""

AGREEMENT = """
import dataclasses
import json
import sys
import keras
import tensorflow as tf
from gradloop import engine

config = engine.TrainConfig(
    strategy="mirrored", num_replicas=2, precision="mixed_bfloat16", seed=7, intra_op_threads=1,
    inter_op_threads=2, deterministic=sys.argv[1] == "deterministic",
)
engine.configure_runtime(config)
with engine.make_strategy(config).scope():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    state = engine.TrainState(model, "sgd", loss="mse")
dataset = tf.data.Dataset.from_tensor_slices((tf.ones((6, 2)), tf.ones((6, 1)))).batch(3)
refused = []
for name in ("intra_op_threads", "inter_op_threads", "num_replicas", "seed"):
    try:
        engine.fit(state, dataset, dataclasses.replace(config, **{name: 8}))
    except engine.ConfigError:
        refused.append(name)
print(json.dumps([engine.fit(state, dataset, config).num_steps, refused]))
"""


def run_python(code, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, check=False, text=True, env=environment, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_settings_of_the_process():
    settings = json.loads(run_python(SETTINGS))
    keras.utils.set_random_seed(7)
    layer = keras.layers.Dense(3)
    layer.build((None, 2))
    assert settings == {
        "cpus": 3,
        "replicas": 3,
        "intra": 1,
        "inter": 2,
        "deterministic": True,
        "policy": "mixed_bfloat16",
        "weight": layer.kernel.numpy().tolist(),
    }


@pytest.mark.parametrize(
    "ops",
    [
        "any ops",
        "deterministic",
    ],
)
def test_a_process_that_was_configured_agrees_with_that_config_alone(ops):
    num_steps, refused = json.loads(run_python(AGREEMENT, ops))
    assert num_steps == 2
    assert refused == ["intra_op_threads", "inter_op_threads", "num_replicas", "seed"]


def test_defaults_leave_threads_and_devices_alone():
    configure_runtime(TrainConfig())
    assert tf.config.threading.get_intra_op_parallelism_threads() == 0
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("seed", [0, 5])
def test_seed_makes_equal_weights(seed):
    def make_weights():
        configure_runtime(TrainConfig(seed=seed))
        layer = keras.layers.Dense(3)
        layer.build((None, 2))
        return layer.kernel.numpy().tolist()

    assert make_weights() == make_weights()


def test_no_seed_leaves_the_generators_alone():
    def draw():
        configure_runtime(TrainConfig(seed=None))
        return float(keras.random.uniform(()))

    assert draw() != draw()


@pytest.mark.parametrize("fields", [{"intra_op_threads": 1}, {"inter_op_threads": 1}])
def test_threads_cannot_change_once_tensorflow_runs(fields):
    tf.zeros([])
    with pytest.raises(ConfigError, match="before the first TensorFlow operation") as raised:
        configure_runtime(TrainConfig(**fields))
    assert "\n" not in str(raised.value)


def test_devices_cannot_be_made_once_tensorflow_runs():
    tf.zeros([])
    with pytest.raises(ConfigError, match="TensorFlow has started"):
        configure_runtime(TrainConfig(strategy="mirrored", num_replicas=5))


def test_more_replicas_than_a_machine_can_be_split_into_are_refused_before_anything_is_made():
    cpu = tf.config.list_physical_devices("CPU")[0]
    before = len(tf.config.get_logical_device_configuration(cpu))
    config = TrainConfig(strategy="mirrored", num_replicas=100_000, seed=12345)
    with pytest.raises(ConfigError, match=r"num_replicas=100000 on \d+ cores.*: ask for \d+ or"):
        configure_runtime(config)
    assert len(tf.config.get_logical_device_configuration(cpu)) == before
