"""What only a GPU can show: `make test-gpu`. Without one, each test is skipped."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.engine import devices
from tests.parity import nets

ROOT = Path(__file__).parents[2]
NUM_GPUS = len(devices.physical("GPU"))

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(NUM_GPUS == 0, reason="needs a GPU, and TensorFlow sees none"),
]
needs_two = pytest.mark.skipif(NUM_GPUS < 2, reason=f"needs two GPUs, and there are {NUM_GPUS}")


@pytest.fixture(autouse=True, scope="module")
def deterministic():
    """Without it, fit's own bits vary from run to run on a GPU. TensorFlow cannot take it back."""
    engine.configure_runtime(engine.TrainConfig(deterministic=True))


def compare(make_state, make_dataset, *, strategy=None, **config):
    config = {"epochs": 2, "steps_per_execution": 4} | config
    comparison = engine.compare_with_fit(
        make_state, make_dataset, engine.TrainConfig(**config), strategy=strategy
    )
    assert comparison.is_equal and comparison.has_moved, comparison.to_table()


def run_python(*arguments, **variables):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["dense", "cnn", "lstm"])
def test_one_gpu_has_the_bits_of_fit(name):
    compare(functools.partial(nets.registered_net, name), nets.image_data, jit_compile=False)


def test_xla_has_the_bits_of_fit(tmp_path):
    """In a process of its own: Keras does not use XLA where operations are deterministic."""
    flags = ["--mode", "compare", "--model", "dense", "--dataset", "synthetic", "--jit_compile"]
    flags += ["true", "--steps_per_epoch", "20", "--run_dir", str(tmp_path / "run")]
    done = run_python("train.py", *flags, XLA_FLAGS="--xla_gpu_deterministic_ops=true")
    assert "equal to fit: all bits of" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_has_the_bits_of_fit(precision):
    keras.config.set_dtype_policy(precision)
    make_state = functools.partial(nets.registered_net, "cnn")
    compare(make_state, nets.image_data, jit_compile=False)


@pytest.mark.parametrize("num_replicas", [1, pytest.param(2, marks=needs_two)])
def test_replicas_have_the_bits_of_fit(num_replicas):
    config = engine.TrainConfig(strategy="mirrored", num_replicas=num_replicas)
    make_state = functools.partial(nets.registered_net, "dense")
    compare(make_state, nets.image_data, strategy=engine.make_strategy(config))


@needs_two
@pytest.mark.parametrize("all_reduce", ["nccl", "ring", "hierarchical", "one_device"])
def test_each_exchange_gives_the_same_bits_with_two_replicas(all_reduce):
    """A sum of two numbers has no order."""
    digests = []
    for value in ("auto", all_reduce):
        config = engine.TrainConfig(strategy="mirrored", num_replicas=2, all_reduce=value, seed=0)
        engine.configure_runtime(config)
        with engine.make_strategy(config).scope():
            state = nets.registered_net("dense")
        engine.fit(state, nets.image_data(), config)
        digests.append(state.weights_sha256())
    assert digests[0] == digests[1]


def test_one_device_has_batches_on_the_gpu_before_the_step():
    strategy = engine.make_strategy(engine.TrainConfig(strategy="one_device"))
    batch = next(iter(strategy.experimental_distribute_dataset(nets.image_data())))
    assert "GPU:0" in batch[0].device


def test_variables_and_products_are_on_the_gpu():
    state = nets.registered_net("dense")
    assert all("GPU:0" in v.value.device for v in state.model.trainable_variables)


def test_what_is_recorded_of_the_gpus():
    gpus = engine.runtime.describe_environment()["gpus"]
    assert gpus["driver"] and gpus["cuda"] and gpus["cudnn"] and gpus["topology"]
    assert len(gpus["devices"]) >= NUM_GPUS


ONE_OF_MANY = """
import json
import tensorflow as tf
from gradloop import engine
config = engine.TrainConfig(strategy="mirrored", num_replicas=1)
engine.configure_runtime(config)
strategy = engine.make_strategy(config)
with strategy.scope():
    tf.Variable(tf.ones([1000]))
info = tf.config.experimental.get_memory_info("GPU:0")
print(json.dumps([len(tf.config.list_logical_devices("GPU")), info["peak"]]))
"""


def test_a_run_takes_one_gpu_and_little_of_its_memory():
    """In a process of its own: what this one has taken cannot be given back."""
    done = run_python("-c", ONE_OF_MANY)
    assert done.returncode == 0, done.stderr
    num_gpus, peak = json.loads(done.stdout.splitlines()[-1])
    assert num_gpus == 1
    assert peak < 2**20
    gpu = devices.physical("GPU")[0]
    assert tf.config.experimental.get_memory_growth(gpu)
