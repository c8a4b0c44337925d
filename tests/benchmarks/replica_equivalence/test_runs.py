"""A small certificate, in processes of its own."""

import json
import sys

import pytest

from benchmarks.replica_equivalence import __main__ as program

MODEL = """
import keras
import numpy as np
import tensorflow as tf

x = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
dataset = tf.data.Dataset.from_tensor_slices((x, x[:, :1])).batch(10)


def make(**options):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dropout(0.5)])
    if options:
        model.add(keras.layers.BatchNormalization(**options))
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model, dataset


def make_normalized():
    return make(synchronized=False)
"""


@pytest.fixture
def my_models(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(MODEL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("my_models", None)


def certify(tmp_path, *flags):
    path = tmp_path / "found.json"
    code = program.main([*flags, "--num_steps", "5", "--output", str(path), "--max_secs", "200"])
    return code, json.loads(path.read_text()) if path.exists() else None


@pytest.mark.slow
def test_a_model_of_ones_own_is_equal_on_two_replicas(my_models, tmp_path):
    flags = ["--model", "my_models:make", "--replicas", "2", "--workers"]
    code, found = certify(tmp_path, *flags)
    assert (code, found["is_equal"], len(found["rows"])) == (0, True, 3)
    one, _, two = found["rows"]
    assert 0 < two["logs"]["loss"] == pytest.approx(one["logs"]["loss"], rel=1e-5)


@pytest.mark.slow
def test_layers_that_are_others_at_each_count_are_refused(my_models, tmp_path, capsys):
    flags = ["--model", "my_models:make_normalized", "--replicas", "2", "--workers"]
    assert certify(tmp_path, *flags) == (2, None)
    assert "set synchronized=True" in capsys.readouterr().err


@pytest.mark.multi_worker
def test_two_workers_have_the_bits_of_two_replicas(tmp_path):
    code, found = certify(tmp_path, "--replicas", "1", "2", "--workers", "2")
    assert code == 0, found
    workers = found["rows"][-1]
    assert (workers["difference"], workers["bound"]) == (0, 0)
