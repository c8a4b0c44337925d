"""TF_CONFIG and SLURM's variables say who the workers are, or the error says what to set."""

import json
import os

import pytest
import tensorflow as tf

from gradloop.engine.config import TrainConfig
from gradloop.engine.options import ConfigError
from gradloop.engine.runtime import configure_runtime
from gradloop.engine.strategy import make_strategy
from gradloop.engine.workers.cluster import find_cluster

WORKERS = {"worker": ["host0:2222", "host1:2222"]}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "")  # what the code sets is taken back
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


def set_config(monkeypatch, cluster, task_type="worker", index=0):
    config = {"cluster": cluster, "task": {"type": task_type, "index": index}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))


def test_first_worker_is_the_chief(monkeypatch):
    set_config(monkeypatch, WORKERS)
    assert find_cluster() == (("host0:2222", "host1:2222"), 0)
    assert find_cluster().is_chief
    set_config(monkeypatch, WORKERS, index=1)
    assert not find_cluster().is_chief


def test_job_chief_comes_before_the_workers(monkeypatch):
    jobs = {"worker": ["host1:2222", "host2:2222"], "chief": ["host0:2222"]}
    set_config(monkeypatch, jobs, "worker", 1)
    assert find_cluster() == (("host0:2222", "host1:2222", "host2:2222"), 2)
    set_config(monkeypatch, jobs, "chief", 0)
    assert find_cluster().is_chief


def test_slurm_is_read_where_there_is_no_tf_config(monkeypatch):
    variables = {"PROCID": 2, "STEP_NUM_TASKS": 3, "STEP_NODELIST": "node[1-2]",
                 "STEP_TASKS_PER_NODE": "2,1"}  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    assert find_cluster() == (("node1:2222", "node1:2223", "node2:2222"), 2)
    assert json.loads(os.environ["TF_CONFIG"])["task"] == {"type": "worker", "index": 2}


def test_slurm_without_a_step_is_an_error(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "0")
    with pytest.raises(ConfigError, match="start the workers with srun, or set TF_CONFIG"):
        find_cluster()


@pytest.mark.parametrize("function", [configure_runtime, make_strategy])
def test_without_variables_the_error_says_what_to_set(function):
    with pytest.raises(ConfigError, match="needs TF_CONFIG, which names all workers"):
        function(TrainConfig(strategy="multi_worker"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Expecting"),
        ("[]", "list indices"),
        ('{"task": {"type": "worker", "index": 0}}', "lacks 'cluster'"),
        ('{"cluster": {"worker": ["a:1"]}}', "lacks 'task'"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "worker 1"),
        ('{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}', ""),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "'ps' does not train"),
        (
            '{"cluster": {"chief": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}',
            "one chief",
        ),
    ],
)
def test_malformed_config_is_an_error(text, why, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match="does not describe a cluster") as raised:
        find_cluster()
    assert why in str(raised.value)
    assert 'set it to the like of \'{"cluster"' in str(raised.value)


def test_multi_worker_after_an_operation_is_an_error(monkeypatch):
    tf.add(1, 1)
    set_config(monkeypatch, {"worker": ["localhost:1", "localhost:2"]})
    with pytest.raises(ConfigError, match="before the first TensorFlow operation"):
        make_strategy(TrainConfig(strategy="multi_worker"))
