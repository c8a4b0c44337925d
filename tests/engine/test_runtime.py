"""configure_runtime, in processes of their own: it changes what belongs to the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from gradloop.engine.config import ConfigError, TrainConfig
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


def run_python(code):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code],
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
