"""docs/profiling.md: its code runs, and its commands are legal."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.cli.reading import read_config
from gradloop.engine.tuning import trial

PAGE = (Path(__file__).parents[3] / "docs" / "profiling.md").read_text("utf-8")


def build_model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])


def test_its_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial, "WARM_UP_SECS", 0.05)
    monkeypatch.setattr(trial, "WINDOW_SECS", 0.02)
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    names = {
        "engine": engine,
        "build_model": build_model,
        "config": engine.TrainConfig(epochs=11),
        "state": engine.TrainState(build_model(), "sgd", loss="mse"),
        "train_ds": tf.data.Dataset.from_tensor_slices((x, x[:, :1])).batch(8),
    }
    for block in re.findall(r"(?ms)^```python\n(.*?)^```", PAGE):
        exec(compile(block, "docs/profiling.md", "exec"), names)
    assert "% of the ceiling" in capsys.readouterr().out
    assert Path("profile", "summary.txt").read_text().startswith("Steps 20 to 40")


@pytest.mark.parametrize("command", re.findall(r"(?m)^python train.py (.*)$", PAGE))
def test_its_commands_are_legal(command, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = read_config(command.split()).config
    assert config.profile == "20,40" or config.mode in ("diagnose_input", "tune")
