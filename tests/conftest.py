"""Logical CPU devices for every test, so that strategies of several replicas need no GPU."""

import gc
import os
import signal
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest
import tensorflow as tf

NUM_LOGICAL_CPUS = 4

# Shells start what they put into the background with Ctrl-C ignored, which the processes that tests
# start would inherit, and ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration() for _ in range(NUM_LOGICAL_CPUS)],
)

# Which cases of a test are slow depends on their parameters: measured, see the file.
SLOW = frozenset(Path(__file__).with_name("slow.txt").read_text("utf-8").splitlines())


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items):
    for item in items:
        if item.nodeid in SLOW:
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def fresh_keras():
    """Each test starts with Keras's names, policy and seed at their defaults."""
    keras.utils.clear_session(free_memory=False)  # a garbage collection a test takes a minute
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(autouse=True, scope="module")
def collected():
    """Leaves what is alive after a module, mostly TensorFlow's, out of later garbage collections.

    A full one would walk through all graphs of the process each time: up to a minute within a test.
    """
    gc.freeze()
    yield
    gc.collect()
