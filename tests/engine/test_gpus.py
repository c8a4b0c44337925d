"""Which GPUs a run takes and what is recorded of them, with GPUs that are made up."""

import ctypes
import json
import subprocess

import pytest
import tensorflow as tf

from gradloop.engine import devices, gpus
from gradloop.engine.config import TrainConfig
from gradloop.engine.options import ConfigError
from gradloop.engine.runtime import configure_runtime, describe_environment

EIGHT = [tf.config.PhysicalDevice(f"/physical_device:GPU:{i}", "GPU") for i in range(8)]


class FakeRuntime:
    """TensorFlow's settings of GPUs: which it sees, and which let their memory grow."""

    def __init__(self, monkeypatch):
        self.visible, self.growing, self.has_started = list(EIGHT), [], False
        physical = devices.physical
        monkeypatch.setattr(
            devices, "physical", lambda kind=None: EIGHT if kind == "GPU" else physical(kind)
        )
        monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: list(self.visible))
        monkeypatch.setattr(tf.config, "set_visible_devices", self.set_visible)
        monkeypatch.setattr(
            tf.config.experimental, "get_memory_growth", lambda gpu: gpu in self.growing
        )
        monkeypatch.setattr(
            tf.config.experimental, "set_memory_growth", lambda gpu, _: self.grow(gpu)
        )

    def set_visible(self, chosen, kind):
        assert kind == "GPU"
        self.check()
        self.visible = list(chosen)

    def grow(self, gpu):
        self.check()
        self.growing.append(gpu)

    def check(self):
        if self.has_started:
            raise RuntimeError("cannot be modified after being initialized")


@pytest.fixture
def runtime(monkeypatch):
    return FakeRuntime(monkeypatch)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"strategy": "mirrored", "num_replicas": 2}, EIGHT[:2]),
        ({"strategy": "mirrored"}, EIGHT),
        ({"strategy": "one_device"}, EIGHT[:1]),
        ({"strategy": "multi_worker"}, EIGHT),
        ({"strategy": "default"}, EIGHT),
        ({}, EIGHT),
    ],
)
def test_a_run_takes_the_gpus_that_it_uses_and_their_memory_as_needed(
    fields, expected, runtime, monkeypatch
):
    task = {"type": "worker", "index": 0}
    cluster = {"cluster": {"worker": ["localhost:1", "localhost:2"]}, "task": task}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    configure_runtime(TrainConfig(**fields))
    assert runtime.visible == runtime.growing == expected


def test_a_second_call_changes_nothing_that_is_enough(runtime):
    two = TrainConfig(strategy="mirrored", num_replicas=2)
    configure_runtime(two)
    runtime.has_started = True
    configure_runtime(two)
    configure_runtime(TrainConfig(strategy="one_device"))  # a GPU more is no harm
    configure_runtime(TrainConfig())
    assert runtime.visible == runtime.growing == EIGHT[:2]
    with pytest.raises(ConfigError, match="TensorFlow has started: its devices") as raised:
        configure_runtime(TrainConfig(strategy="mirrored", num_replicas=3))
    assert "\n" not in str(raised.value)


def test_logical_cpus_are_not_made_beside_gpus(runtime, monkeypatch):
    def fail(*args):
        raise AssertionError

    monkeypatch.setattr(tf.config, "set_logical_device_configuration", fail)
    configure_runtime(TrainConfig(strategy="mirrored", num_replicas=8))


def test_one_device_copies_batches_ahead_and_the_default_strategy_does_not():
    """As OneDeviceStrategy promises; a second logical CPU stands for the GPU."""
    dataset = tf.data.Dataset.range(4).batch(2)
    there = tf.distribute.OneDeviceStrategy("CPU:1").experimental_distribute_dataset(dataset)
    here = tf.distribute.get_strategy().experimental_distribute_dataset(dataset)
    assert [next(iter(one)).device[-5:] for one in (there, here)] == ["CPU:1", "CPU:0"]


SMI = {
    "--query-gpu": "570.86.15, NVIDIA H100 80GB HBM3, 9.0, 81559 MiB, 00000000:1B:00.0\n" * 2,
    "topo": "\tGPU0\tGPU1\nGPU0\tX\tNV18\nGPU1\tNV18\tX\n",
}


class FakeNccl:
    @staticmethod
    def ncclGetVersion(pointer):
        ctypes.cast(pointer, ctypes.POINTER(ctypes.c_int))[0] = 22703
        return 0


def test_the_environment_has_driver_versions_and_topology(runtime, monkeypatch):
    def run(command, **options):
        assert command[0] == "nvidia-smi"
        found = next(text for name, text in SMI.items() if command[1].startswith(name))
        return subprocess.CompletedProcess(command, 0, stdout=found)

    monkeypatch.setattr(gpus.subprocess, "run", run)
    build = {"cuda_version": "12.5.1", "cudnn_version": "9"}
    monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda: build)
    monkeypatch.setattr(gpus, "nccl_version", lambda: "2.27.3")
    found = gpus.describe_gpus()
    assert {k: found[k] for k in ("driver", "cuda", "cudnn", "nccl")} == {
        "driver": "570.86.15", "cuda": "12.5.1", "cudnn": "9", "nccl": "2.27.3",
    }  # fmt: skip
    assert [one["name"] for one in found["devices"]] == ["NVIDIA H100 80GB HBM3"] * 2
    assert found["devices"][0]["compute_cap"] == "9.0"
    assert "NV18" in found["topology"]


def test_the_version_of_nccl_is_its_librarys():
    assert gpus.nccl_version(lambda name: FakeNccl) == "2.27.3"

    def load(name):
        raise OSError

    assert gpus.nccl_version(load) is None
    assert gpus.nccl_version(lambda name: object()) is None


def test_what_cannot_be_found_is_null(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(devices, "physical", lambda kind=None: [])
    monkeypatch.setattr(tf.sysconfig, "get_build_info", dict)
    environment = describe_environment()
    assert environment["gpus"] == {
        "driver": None, "cuda": None, "cudnn": None, "nccl": None, "devices": [], "topology": None,
    }  # fmt: skip
    assert environment["tf32"] in (True, False)
