"""--init_from takes weights alone, from each kind of file, and says what did not match."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradloop import engine
from gradloop.cli import main as train
from gradloop.cli.work.initial import take_weights
from tests.cli.own_nets import build
from tests.cli.runs import read

SHAPE, CLASSES = (4,), 3
QUICK = ["--dataset", "synthetic", "--limit_train_batches", "2", "--validation_steps", "1"]
QUICK += ["--no_tensorboard", "--no_plots", "--model", "tests.cli.own_nets:build"]


def make_built(num_classes=CLASSES):
    state = engine.TrainState(build(SHAPE, num_classes), "adam", loss="mse")
    state.build((tf.TensorSpec((None, *SHAPE)), tf.TensorSpec((None, num_classes))))
    return state


@pytest.fixture
def source():
    """A state whose weights no initializer makes."""
    state = make_built()
    for number, weight in enumerate(state.model.weights):
        weight.assign(np.full(weight.shape, number + 0.5, "float32"))
    return state


def write(source, folder, kind):
    """Writes the weights, and returns what to pass to `init_from`."""
    if kind == "run":
        engine.save_checkpoint(folder / "checkpoints", source)
        return folder
    if kind == "npz":
        return engine.save_checkpoint(folder, source)
    path = folder / f"model.{kind}"
    source.model.save(path) if kind == "keras" else source.model.save_weights(path)
    return path


def means(state):
    return [float(np.mean(weight)) for weight in state.model.get_weights()]


@pytest.mark.parametrize("kind", ["npz", "run", "keras", "weights.h5"])
def test_each_kind_of_file(source, tmp_path, kind):
    state, path = make_built(), write(source, tmp_path, kind)
    iterations = int(state.optimizer.iterations)
    text = take_weights(str(path), state, [])
    assert means(state) == [0.5, 1.5, 2.5, 3.5] and int(state.optimizer.iterations) == iterations
    assert text.startswith("4 of 4 variables from ") and "new" not in text


@pytest.mark.parametrize("kind", ["npz", "keras", "weights.h5"])
@pytest.mark.parametrize("pattern", ["head", "head/*", "h*d/*"])
def test_what_is_excluded_keeps_its_values(source, tmp_path, kind, pattern):
    state, path = make_built(num_classes=5), write(source, tmp_path, kind)
    kept = state.model.get_weights()[2:]
    text = take_weights(str(path), state, [pattern])
    assert means(state)[:2] == [0.5, 1.5]
    assert text.endswith(", new: head/kernel, head/bias") and text.startswith("2 of 4")
    np.testing.assert_equal(state.model.get_weights()[2:], kept)


@pytest.mark.parametrize("kind", ["npz", "keras", "weights.h5"])
def test_another_shape_says_to_exclude_and_changes_nothing(source, tmp_path, kind):
    state, path = make_built(num_classes=5), write(source, tmp_path, kind)
    before = state.model.get_weights()
    with pytest.raises(engine.ConfigError) as error:
        take_weights(str(path), state, [])
    assert "--exclude" in str(error.value) and "\n" not in str(error.value)
    if kind != "weights.h5":
        assert "has head/kernel of shape (8, 3), and the model (8, 5)" in str(error.value)
    np.testing.assert_equal(state.model.get_weights(), before)


def test_files_that_cannot_be_used_are_named(source, tmp_path):
    def message(path, exclude=()):
        with pytest.raises(engine.ConfigError) as error:
            take_weights(str(path), make_built(), exclude)
        assert "\n" not in str(error.value)
        return str(error.value)

    (tmp_path / "weights.bin").write_bytes(b"")
    (tmp_path / "ckpt-1.npz").write_bytes(b"none")
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="other")])
    other.save(tmp_path / "other.keras")
    good = write(source, tmp_path, "keras")
    assert "does not exist" in message(tmp_path / "nowhere.npz")
    assert "is of no known kind" in message(tmp_path / "weights.bin")
    assert "cannot be read for this model" in message(write_text(tmp_path / "bad.keras"))
    assert "init_from:" in message(tmp_path / "ckpt-1.npz")
    assert "nothing in" in message(tmp_path / "other.keras")
    assert "has no intact checkpoint" in message(make_folder(tmp_path / "empty"))
    found = message(good, ["hed"])
    assert "exclude='hed' is of no variable" in found and "Did you mean 'head'?" in found


def write_text(path):
    path.write_text("none")
    return path


def make_folder(path):
    path.mkdir()
    return path


def test_a_run_begins_with_the_weights_and_a_restart_does_not_take_them_again(tmp_path, capsys):
    def start(name, *flags):
        keras.utils.clear_session(free_memory=False)
        return train.main([*QUICK, "--run_dir", str(tmp_path / name), *flags])

    init = ["--init_from", str(tmp_path / "first"), "--exclude", "head"]
    assert start("first") == 0
    capsys.readouterr()
    assert start("second", *init, "--resume", "auto") == 0
    assert "initial    2 of 4 variables from" in capsys.readouterr().out
    assert read(tmp_path / "second")["weights_sha256"] != read(tmp_path / "first")["weights_sha256"]
    assert start("whole", *init, "--epochs", "2") == 0
    assert start("second", *init, "--resume", "auto", "--epochs", "2") == 0
    assert "initial  " not in capsys.readouterr().out.split("restored")[-1]
    assert read(tmp_path / "second")["weights_sha256"] == read(tmp_path / "whole")["weights_sha256"]
    assert start("second", "--resume", "--epochs", "3", "--init_from", "other.npz") == 2
    assert "its weights are its own by now" in capsys.readouterr().err
