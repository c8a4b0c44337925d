"""Logical CPU devices for every test, so that strategies of several replicas need no GPU."""

import gc
import os
import signal
import time
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
# No slow test starts later than this after the first one: CI ends in time on a slow machine, too.
MAX_SECS_OF_SLOW = float(os.environ.get("MAX_SECS_OF_SLOW", "inf"))
STARTED_AT = time.monotonic()


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items):
    for item in items:
        if item.nodeid in SLOW:
            item.add_marker("slow")


def pytest_runtest_setup(item):
    is_slow = item.get_closest_marker("slow") or item.get_closest_marker("multi_worker")
    if is_slow and time.monotonic() - STARTED_AT > MAX_SECS_OF_SLOW:
        pytest.skip(f"slow, and {MAX_SECS_OF_SLOW:.0f} s are over (MAX_SECS_OF_SLOW)")


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
